"""From raw text to a trained model: presets, preparation, levels, schedules, TensorBoard."""

import itertools
import json
import sys

import numpy as np
import pytest

from anaphora.artifact import ArtifactError, ModelDirectory, lock
from anaphora.artifact.lock import Lock
from anaphora.data import DataError, WordTokenizer, cover
from anaphora.models import LanguageModel
from anaphora.optim import ASGD, WarmUp
from anaphora.training import (
    LANGUAGE_MODEL,
    LanguageModelOptions,
    Task,
    TensorBoard,
    evaluate,
    evaluation_batches,
    preparation,
    prepare_training,
    resume_training,
)

TEXT = (
    "Beginning each clause with the same words is a habit of speech.\n"
    "A word that refers back to what was said before needs a memory of it.\n"
    "It is what a network with a state does, step by step.\n"
) * 12
TINY = {
    "hidden_size": 6, "embedding_size": 4, "batch_size": 2, "window": 8, "minimum_count": 1,
    "evaluation_batch_size": 2, "max_steps": 6, "log_every": 1, "evaluate_every": 3,
}  # fmt: skip


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def options(**changes):
    return LanguageModelOptions.make("char-small", **{**TINY, **changes})


def prepare(tmp_path, text, *, name="model", valid=(), overwrite=False, **changes):
    texts = [text] if not isinstance(text, list) else text
    return prepare_training(
        LANGUAGE_MODEL, options(**changes), tmp_path / name, texts, valid, overwrite=overwrite
    )


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def metrics(trainer, kind=None):
    records = trainer.directory.read_metrics()
    return [r for r in records if kind is None or r["kind"] == kind]


# Presets


def test_the_zaremba_schedule_on_a_text(tmp_path, text):
    changes = {
        "hidden_size": 6, "window": 8, "batch_size": 2, "epochs": 8, "log_every": 1, "max_steps": 99
    }  # fmt: skip
    given = LanguageModelOptions.make("zaremba-small", **changes)
    trainer = prepare_training(LANGUAGE_MODEL, given, tmp_path / "model", [text])
    steps = len(trainer.batches)
    trainer.options = options(epochs=6, max_steps=None, log_every=1, evaluate_every=0)
    trainer.run()
    rates = [r["learning_rate"] for r in metrics(trainer, "train")]
    assert rates == np.repeat([1.0, 1.0, 1.0, 1.0, 0.5, 0.25], steps).tolist()
    assert [r["epoch"] for r in metrics(trainer, "evaluation")] == [1, 2, 3, 4, 5, 6]


def test_the_zaremba_presets_are_the_papers():
    for name, hidden, dropout, uniform, window, epochs, constant, decay, clip in [
        ("small", 200, 0.0, 0.1, 20, 13, 4, 1 / 2, 5),
        ("medium", 650, 0.5, 0.05, 35, 39, 6, 1 / 1.2, 5),
        ("large", 1500, 0.65, 0.04, 35, 55, 14, 1 / 1.15, 10),
    ]:
        given = LanguageModelOptions.make(f"zaremba-{name}")
        model = training = given
        assert (model.hidden_size, model.num_layers, model.cell) == (hidden, 2, "lstm")
        assert (model.dropout, model.initialization) == (dropout, uniform)
        assert (training.batch_size, training.window, training.epochs) == (20, window, epochs)
        assert (training.constant_epochs, training.decay) == (constant, decay)
        assert (training.optimizer, training.learning_rate) == ("sgd", 1.0)
        assert (training.clip_norm, training.loss_per) == (clip, "sequence")
        assert (training.evaluation_batch_size, given.level) == (1, "word")


def test_a_limit_takes_the_place_of_the_presets():
    training = LanguageModelOptions.make("zaremba-small", max_steps=7)
    assert (training.epochs, training.max_steps, training.minutes) == (None, 7, None)


def test_a_preset_gives_way_to_what_leaves_no_room_for_it():
    assert LanguageModelOptions.make(cell="gru").forget_bias is None
    assert LanguageModelOptions.make(cell="lstm").forget_bias == 1.0
    assert LanguageModelOptions.make(minutes=1.0).schedule == "plateau"
    both = LanguageModelOptions.make(minutes=1.0, max_steps=5)
    assert both.schedule == "cosine"
    with pytest.raises(ValueError, match="cosine ends at a known step"):
        LanguageModelOptions.make(minutes=1.0, schedule="cosine")


REGULARISERS = {
    "dropout": 0.3, "locked_dropout": True, "embedding_dropout": 0.1, "weight_dropout": 0.2,
    "zoneout": 0.1, "layer_norm": True, "activation_penalty": 2.0, "temporal_penalty": 1.0,
}  # fmt: skip


def test_regularisers_are_saved_with_the_model(tmp_path, text):
    trainer = prepare(tmp_path, text, **REGULARISERS)
    trainer.run()
    config = json.loads(trainer.directory.config.read_text())
    assert {name: config["model"][name] for name in REGULARISERS} == REGULARISERS
    model = LanguageModel.load(tmp_path / "model")
    assert (model.recurrent.locked_dropout, model.drop.locked) == (True, True)
    assert (model.embedding.dropout, model.recurrent.weight_dropout) == (0.1, 0.2)
    assert (model.recurrent.zoneout, model.recurrent.layer_norm) == (0.1, True)
    assert (model.activation_penalty, model.temporal_penalty) == (2.0, 1.0)
    best = min(metrics(trainer, "evaluation"), key=lambda record: record["loss"])
    assert evaluate(model, trainer.validation).loss == pytest.approx(best["loss"], rel=1e-6)


def test_a_model_saved_before_there_were_regularisers_loads_and_goes_on(tmp_path, text):
    trainer = prepare(tmp_path, text, dropout=0.3)
    trainer.run()
    config = json.loads(trainer.directory.config.read_text())
    for name in REGULARISERS.keys() - {"dropout"}:
        del config["model"][name]
    trainer.directory.config.write_text(json.dumps(config))
    model = LanguageModel.load(tmp_path / "model")
    assert not model.penalized
    assert (
        resume_training(LANGUAGE_MODEL, tmp_path / "model", {"max_steps": 8}).run()
        == "8 steps done"
    )


def test_options_go_through_json():
    for given in (options(), options(initialization="0.5", level="word", lowercase=True)):
        assert LanguageModelOptions.from_dict(json.loads(json.dumps(given.to_dict()))) == given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sise": 3}, "unknown options: hidden_sise"),
        ({"level": "syllable"}, "level 'syllable' is not one of char, word, bpe"),
        ({"hidden_size": 0}, "hidden_size must be an integer of at least 1, not 0"),
        ({"dropout": 2.0}, "dropout must be >= 0 and < 1, not 2.0"),
        ({"locked_dropout": True}, "locked_dropout needs dropout, which is 0"),
        ({"tied": True}, r"embedding_size \(4\) and hidden_size \(6\)"),
        ({"vocabulary_size": 0}, "vocabulary_size must be an integer of at least 1"),
        ({"level": "bpe", "vocabulary_size": 100}, "vocabulary_size .* at least 256, not 100"),
        ({"validation_share": 1.0}, "validation_share must be >= 0 and < 1"),
        ({"batching": "sentences"}, "batching 'sentences' needs level 'word'"),
        ({"lowercase": True}, "lowercase is for level 'word', not for 'char'"),
        ({"split": "punctuation"}, "split 'punctuation' is for level 'word'"),
    ],
)
def test_options_that_do_not_fit_together(changes, message):
    with pytest.raises(ValueError, match=message):
        options(**changes)
    with pytest.raises(ValueError, match="preset 'big' is not one of char-small, zaremba-small"):
        LanguageModelOptions.make("big")


# Preparation


@pytest.mark.parametrize(
    "changes",
    [
        {"cell": "gru", "forget_bias": 1.0},
        {"initialization": "sparse"},
        {"initialization": -1.0},
        {"schedule": "exponential", "decay": 2.0},
        {"optimizer": "sgd", "momentum": 1.0},
    ],
)
def test_wrong_options_come_up_before_the_text_is_read(tmp_path, changes):
    with pytest.raises(ValueError, match=r"forget_bias|initialization|decay|momentum") as error:
        prepare(tmp_path, tmp_path / "missing.txt", **changes)
    assert not isinstance(error.value, DataError)
    assert not (tmp_path / "model").exists()


def spoil(tmp_path, kind):
    path = tmp_path / f"{kind}.txt"
    if kind != "missing":
        content = {"short": b"abc", "empty": b"", "latin": b"caf\xe9 " * 99}[kind]
        path.write_bytes(content)
    return path


BAD_TEXTS = [
    ("missing", "does not exist"),
    ("short", "the text has 3 tokens, but one window of 2 parallel streams"),
    ("empty", "is empty: there is nothing to read"),
    ("latin", "is not valid UTF-8: byte 0xE9 at offset 3"),
]


@pytest.mark.parametrize(("kind", "message"), BAD_TEXTS)
def test_a_bad_text_leaves_no_directory_behind(tmp_path, kind, message):
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, spoil(tmp_path, kind))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("kind", "message"), BAD_TEXTS)
def test_a_bad_text_destroys_no_old_model(tmp_path, text, kind, message):
    prepare(tmp_path, text).run()
    before = contents(tmp_path / "model")
    with pytest.raises(DataError, match=message):
        prepare(tmp_path, spoil(tmp_path, kind), overwrite=True)
    if kind != "short":
        with pytest.raises(DataError, match=message):
            prepare(tmp_path, text, valid=[spoil(tmp_path, kind)], overwrite=True)
    assert contents(tmp_path / "model") == before
    resume_training(LANGUAGE_MODEL, tmp_path / "model", {"max_steps": 8}).run()


def test_ctrl_c_while_reading_leaves_what_was_there(tmp_path, text, monkeypatch):
    prepare(tmp_path, text).run()
    before = contents(tmp_path / "model")

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Task, "make_model", interrupt)
    monkeypatch.setattr(preparation, "_check", lambda task, options: None)
    for name, overwrite in (("model", True), ("new", False)):
        with pytest.raises(KeyboardInterrupt):
            prepare(tmp_path, text, name=name, overwrite=overwrite)
    assert contents(tmp_path / "model") == before
    assert not (tmp_path / "new").exists()


def interrupt_at(number, functions):
    """Interrupt this thread once, at an instruction of functions, counted over all of them."""
    codes, seen = {function.__code__ for function in functions}, 0

    def trace(frame, event, argument):
        nonlocal seen
        if frame.f_code not in codes:
            return None
        frame.f_trace_opcodes = True
        seen += event == "opcode"
        if seen == number:
            sys.settrace(None)
            raise KeyboardInterrupt
        return trace

    sys.settrace(trace)


def test_ctrl_c_while_locking_leaves_nothing(tmp_path, text):
    """At each instruction of it; one more is never reached, and the training is prepared."""
    functions = [ModelDirectory.lock, Lock.acquire, lock._try_to_lock, lock._write]
    for number in itertools.count(1):
        before = sys.gettrace()
        try:
            interrupt_at(number, functions)
            prepare(tmp_path, text)
        except KeyboardInterrupt:
            assert not (tmp_path / "model").exists(), number
        else:
            break
        finally:
            sys.settrace(before)
    assert number > 100
    assert (tmp_path / "model").exists()


def test_an_existing_model_is_refused_before_the_text_is_read(tmp_path, text):
    prepare(tmp_path, text)
    with pytest.raises(ArtifactError, match="already holds a model"):
        prepare(tmp_path, tmp_path / "missing.txt")
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_bytes(b"")
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match="is not empty and is not a model directory"):
            prepare(tmp_path, tmp_path / "missing.txt", name="photos", overwrite=overwrite)
    (other / "model.safetensors").write_bytes(b"of another program")
    with pytest.raises(ArtifactError, match="is not a model directory"):
        prepare(tmp_path, text, name="photos", overwrite=True)
    assert (other / "model.safetensors").read_bytes() == b"of another program"


def test_a_new_model_takes_nothing_over_from_the_one_it_replaces(tmp_path, text):
    valid = tmp_path / "valid.txt"
    valid.write_text(TEXT[:100])
    prepare(tmp_path, text, valid=[valid]).run()
    fresh = prepare(tmp_path, text, overwrite=True)
    assert fresh.directory.read_metrics() == []
    fresh.directory.unlock()
    again = resume_training(LANGUAGE_MODEL, tmp_path / "model")
    assert again.validation.tokens == fresh.validation.tokens != 99
    assert again.progress.step == 0


def test_the_validation_text_is_named_where_it_has_unknown_tokens(tmp_path, text):
    valid = tmp_path / "valid.txt"
    valid.write_text("A word\nthat Zaremba\n")
    with pytest.raises(DataError, match=r"validation text .*valid.txt: the character 'Z'.* line 2"):
        prepare(tmp_path, text, valid=[valid])


def test_the_end_of_the_text_is_held_out(tmp_path, text):
    trainer = prepare(tmp_path, text, validation_share=0.25, batch_size=1)
    kept = len(TEXT) - len(TEXT) // 4
    assert trainer.batches.tokens == kept - 1
    assert trainer.validation.tokens == len(TEXT) // 4 - 1
    none = prepare(tmp_path, text, name="none", validation_share=0.0)
    assert none.validation is None
    none.run()
    assert metrics(none, "evaluation") == []
    assert LanguageModel.load(tmp_path / "none").vocabulary_size > 10


# Levels, batching, sources


def test_batch_size_1_evaluates_the_text_in_one_pass(tmp_path, text):
    trainer = prepare(tmp_path, text, level="word")
    trainer.run()
    model = LanguageModel.load(tmp_path / "model")
    tokenizer = model.codec
    ids = tokenizer.encode(TEXT)
    given = LANGUAGE_MODEL.load_options(tmp_path / "model")
    found = evaluate(model, evaluation_batches(given, tokenizer, ids, 1))
    complete = evaluate(model, cover(ids, 1, len(ids), tokenizer.start_id))
    assert found.tokens == complete.tokens == len(ids)
    np.testing.assert_allclose(found.loss, complete.loss, rtol=1e-6)


@pytest.mark.parametrize("sentence_start", [False, True])
def test_sentences(tmp_path, text, sentence_start):
    trainer = prepare(
        tmp_path, text, level="word", batching="sentences", sentence_start=sentence_start, window=5
    )
    trainer.run()
    words = len(WordTokenizer.fit([TEXT]).encode(TEXT))
    assert trainer.batches.tokens + trainer.validation.tokens == pytest.approx(words, abs=1)
    assert not trainer.batches.carries_state
    # The loss of an evaluation does not depend on how many sentences are side by side.
    model = LanguageModel.load(tmp_path / "model")
    tokenizer = model.codec
    ids = tokenizer.encode(TEXT)
    given = LANGUAGE_MODEL.load_options(tmp_path / "model")
    one, many = (evaluate(model, evaluation_batches(given, tokenizer, ids, n)) for n in (1, 32))
    assert one.tokens == many.tokens == words
    np.testing.assert_allclose(one.loss, many.loss, rtol=1e-6)


def test_byte_pairs(tmp_path, text):
    pytest.importorskip("tokenizers")
    trainer = prepare(tmp_path, text, level="bpe", vocabulary_size=280)
    trainer.run()
    model = LanguageModel.load(tmp_path / "model")
    tokenizer = model.codec
    assert model.vocabulary_size == tokenizer.vocabulary_size == 280
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_a_folder_and_a_column(tmp_path, text):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "one.md").write_text(TEXT)
    (folder / "below" / "two.md").write_text(TEXT)
    (folder / "other.txt").write_text("not read")
    trainer = prepare(tmp_path, folder, pattern="*.md", validation_share=0.0)
    assert trainer.batches.tokens == 2 * len(TEXT) - 2
    table = tmp_path / "table.csv"
    table.write_text("id,body\n" + "".join(f'{n},"{line}"\n' for n, line in enumerate([TEXT] * 2)))
    trainer = prepare(tmp_path, table, name="column", column="body", validation_share=0.0)
    assert trainer.batches.tokens == 2 * len(TEXT) - 2


# Optimisers and schedules


def test_asgd_averages_from_the_non_monotonic_trigger_on(tmp_path, text):
    trainer = prepare(
        tmp_path, text, optimizer="asgd", schedule="nonmonotonic", learning_rate=5.0,
        evaluate_every=1, max_steps=30, clip_norm=0.0,
    )  # fmt: skip
    assert isinstance(trainer.optimizer, ASGD)
    trainer.schedule.losses = [0.0] * 6  # better than any loss to come
    trainer.run()
    assert trainer.optimizer.averaging
    state = trainer.optimizer.state_dict()
    assert state["averaged_steps"] == 29
    saved = LanguageModel.load(tmp_path / "model")
    weight = dict(saved.named_parameters())["output.weight"].data
    best = metrics(trainer, "evaluation")[-1]["best"]
    if best:  # then the averages are what was saved
        np.testing.assert_array_equal(weight, state["arrays"]["output.weight.average"])
    with trainer.optimizer.averaged():
        found = evaluate(trainer.model, trainer.validation).loss
    np.testing.assert_allclose(found, metrics(trainer, "evaluation")[-1]["loss"], rtol=1e-6)


def test_warm_up_and_cosine(tmp_path, text):
    trainer = prepare(tmp_path, text, warm_up=3, max_steps=6, learning_rate=0.1)
    assert isinstance(trainer.schedule, WarmUp)
    trainer.run()
    rates = [r["learning_rate"] for r in metrics(trainer, "train")]
    cosine = [0.05 * (1 + np.cos(np.pi * step / 6)) for step in range(6)]
    np.testing.assert_allclose(rates, np.array(cosine) * [1 / 3, 2 / 3, 1, 1, 1, 1])


def test_plateau(tmp_path, text):
    trainer = prepare(
        tmp_path, text, schedule="plateau", decay=0.1, evaluate_every=1, max_steps=5,
        learning_rate=1.0,
    )  # fmt: skip
    trainer.schedule.best_loss = 0.0
    trainer.run()
    rates = [r["learning_rate"] for r in metrics(trainer, "train")]
    np.testing.assert_allclose(rates, [1.0, 0.1, 0.01, 1e-3, 1e-4])


def test_the_best_model_and_its_results_are_what_the_directory_holds(tmp_path, text):
    trainer = prepare(tmp_path, text, evaluate_every=2, max_steps=8, learning_rate=0.01)
    trainer.run()
    best = min(metrics(trainer, "evaluation"), key=lambda record: record["loss"])
    config, _, _ = ModelDirectory.open(tmp_path / "model").load()
    assert config["results"]["loss"] == best["loss"] == trainer.progress.best_loss
    assert config["results"]["step"] == best["step"]
    model = LanguageModel.load(tmp_path / "model")
    np.testing.assert_allclose(evaluate(model, trainer.validation).loss, best["loss"], rtol=1e-6)


# TensorBoard


def test_tensorboard(tmp_path, text):
    pytest.importorskip("tensorboardX")
    trainer = prepare(tmp_path, text)
    trainer.callbacks.append(TensorBoard(tmp_path / "board"))
    trainer.run()
    (events,) = (tmp_path / "board").iterdir()
    content = events.read_bytes()
    for tag in (b"train/loss", b"train/learning_rate", b"evaluation/perplexity"):
        assert tag in content
    assert b"evaluation/best" not in content


def test_tensorboard_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install "anaphora\[tensorboard\]"'):
        TensorBoard(tmp_path)
