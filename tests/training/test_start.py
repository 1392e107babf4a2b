"""Fine-tuning: what a training takes from the model that it begins with, and what it refuses."""

import hashlib
import json

import numpy as np
import pytest

from anaphora.artifact import ArtifactError
from anaphora.cells import cell
from anaphora.data import DataError, WordTokenizer
from anaphora.equations import sigmoid, tanh
from anaphora.tensor import no_grad
from anaphora.training import TASKS, Callback, Start, prepare_training, resume_training

LANGUAGE_MODEL, CLASSIFY, TAG, TRANSLATE = (
    TASKS[name] for name in ("language-model", "classify", "tag", "translate")
)
SMALL = {"batch_size": 2, "max_steps": 3, "evaluate_every": 2, "log_every": 1}
LM = {**SMALL, "hidden_size": 5, "embedding_size": 4, "window": 6, "minimum_count": 1,
      "num_layers": 2}  # fmt: skip
TABLE = {"column": "text", "label_column": "label"}


@cell(gates="f n", state="h", parameters="p")
def forgetful(f, n, h, p):
    f = sigmoid(f + p * h)
    return f * h + (1 - f) * tanh(n)


@pytest.fixture
def train(tmp_path):
    """Trains a model on files that are given as texts by name; the name of the directory first."""

    def train(out, task, files, start=None, run=True, **options):
        paths = []
        for name, text in files.items():
            (tmp_path / name).write_text(text)
            paths.append(tmp_path / name)
        make = task.options.make if start is None else lambda **o: start.options(task, **o)
        trainer = prepare_training(task, make(**options), tmp_path / out, paths, start=start)
        if run:
            trainer.run()
        return trainer

    return train


def weights(model):
    return {name: parameter.data.copy() for name, parameter in model.named_parameters()}


def labelled(*rows):
    return {"table.tsv": "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)}


def test_the_same_vocabulary_begins_with_the_same_weights(train, tmp_path):
    train("model", LANGUAGE_MODEL, {"a.txt": "to be or not to be\n" * 12}, **LM, dropout=0.2)
    start = Start(tmp_path / "model")
    trainer = train("tuned", LANGUAGE_MODEL, {"b.txt": "be to\n" * 40}, start, False, **SMALL)
    model = start.model
    for name, array in weights(trainer.model).items():
        np.testing.assert_array_equal(array, weights(model)[name])
    assert trainer.model.codec.to_dict() == model.codec.to_dict()
    assert trainer.model.options == model.options  # dropout too
    assert trainer.model.training
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert config["from"] == {
        "path": str(tmp_path / "model"),
        "task": "language-model",
        "weights": "sha256:"
        + hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest(),
        "vocabulary": "keep",
    }
    before = weights(trainer.model)
    trainer.run()
    resume_training(LANGUAGE_MODEL, tmp_path / "tuned", {"max_steps": 4}).run()
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["from"] == config["from"]
    assert any((array != before[name]).any() for name, array in weights(trainer.model).items())


@pytest.mark.parametrize("vocabulary", ["extend", "new"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("level", ["char", "word"])
def test_rows_go_with_their_tokens(train, tmp_path, vocabulary, tied, level):
    size = {"embedding_size": 5} if tied else {}
    train(
        "model", LANGUAGE_MODEL, {"a.txt": "b b b d d f\n" * 20}, **{**LM, **size}, tied=tied,
        level=level,
    )  # fmt: skip
    start = Start(tmp_path / "model", vocabulary)
    files = {"b.txt": "c f f f f c d a\n" * 20}
    trainer = train("tuned", LANGUAGE_MODEL, files, start, False, **SMALL, minimum_count=1)
    old, new = start.model.codec.tokens_by_id(), trainer.model.codec.tokens_by_id()
    added = ["a", "c"]
    if vocabulary == "extend":
        assert set(new) == {*old, *added}
        if level == "word":
            assert new[: len(old)] == old
    else:
        assert set(new) == {*old, *added} - {"b"}
    before, after = weights(start.model), weights(trainer.model)
    names = ["embedding.weight", "output.bias"] + ([] if tied else ["output.weight"])
    assert before.keys() == after.keys()
    for name in names:
        for number, token in enumerate(new):
            expected = before[name][old.index(token)] if token in old else before[name].mean(axis=0)
            np.testing.assert_array_equal(after[name][number], expected, err_msg=f"{name} {token}")
    for name in before.keys() - set(names):
        np.testing.assert_array_equal(after[name], before[name])
    assert len({tuple(row) for row in before["embedding.weight"]}) == len(old)


def test_byte_pairs(train, tmp_path):
    pytest.importorskip("tokenizers")
    text = {"a.txt": "to be or not to be, that is the question\n" * 12}
    options = {**LM, "level": "bpe", "vocabulary_size": 262}
    train("model", LANGUAGE_MODEL, text, **options)
    new = {"b.txt": "so so so so many questions\n" * 20}
    trainer = train("kept", LANGUAGE_MODEL, new, Start(tmp_path / "model"), False, **SMALL)
    assert trainer.model.codec.vocabulary_size == 262
    start = Start(tmp_path / "model", "new")
    trainer = train("new", LANGUAGE_MODEL, new, start, False, **SMALL, vocabulary_size=261)
    old, found = start.model.codec.tokens_by_id(), trainer.model.codec.tokens_by_id()
    common = set(old) & set(found)
    assert 256 <= len(common) < 261
    for token in common:
        np.testing.assert_array_equal(
            trainer.model.embedding.weight.data[found.index(token)],
            start.model.embedding.weight.data[old.index(token)],
        )
    with pytest.raises(DataError, match="a vocabulary of level 'bpe' cannot be extended"):
        train("x", LANGUAGE_MODEL, new, Start(tmp_path / "model", "extend"), **SMALL)


@pytest.mark.parametrize("own", [False, True])
def test_a_classifier_begins_with_the_reader_of_a_language_model(train, tmp_path, own):
    cells = {"cell": forgetful} if own else {}
    train("model", LANGUAGE_MODEL, {"a.txt": "oh ah hm\n" * 30}, **LM, **cells, level="word")
    start = Start(tmp_path / "model")
    files = labelled(*[("oh ah", "low"), ("hm hm", "high")] * 10)
    trainer = train("classifier", CLASSIFY, files, start, False, **SMALL, **TABLE)
    model = trainer.model
    assert not model.bidirectional
    assert model.codec.tokenizer.to_dict() == start.model.codec.to_dict()
    ids = np.array([[1, 3], [2, 0], [3, 3]])
    with no_grad():
        expected, found = start.model.read(ids)[0].data, model.eval().read(ids)[0].data
    np.testing.assert_array_equal(found, expected)
    assert np.abs(expected).max() > 0.01
    assert model.output.weight.shape == (2, 5)
    model.train()
    trainer.run()
    again = TASKS["classify"].load(tmp_path / "classifier")
    assert again.codec.classes == ("high", "low")


def test_a_tagger_begins_with_the_reader_of_a_language_model(train, tmp_path):
    text = {"a.txt": "it rains\nwe go home\n" * 20}
    train("model", LANGUAGE_MODEL, text, **LM, level="word", lowercase=True)
    files = {"t.tsv": "It\tPRON\nsnows\tVERB\n\nWe\tPRON\ngo\tVERB\nhome\tNOUN\n\n" * 6}
    start = Start(tmp_path / "model", "extend")
    trainer = train("tagger", TAG, files, start, False, **SMALL, tag_column=2, minimum_count=1)
    tagger = trainer.model.eval()
    codec = tagger.codec
    assert codec.lowercase
    assert set(codec.words) == {"it", "rains", "we", "go", "home", "snows"}
    # It reads what the language model reads, whatever the words are spelled like.
    words = ["We", "go", "home"]
    tokens = start.model.codec.tokens_by_id()
    ids = np.array([[tokens.index(word.lower())] for word in words])
    batch = codec.input_batch([words])
    with no_grad():
        expected = start.model.read(ids)[0].data
        spelling = (batch.characters, batch.character_lengths)
        found = tagger.read(batch.inputs, None, batch.lengths, *spelling)[0].data
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    snows = tagger.embedding.weight.data[codec.encode_words(["snows"])[0]]
    mean = start.model.embedding.weight.data.mean(axis=0)
    np.testing.assert_array_equal(snows, mean)
    assert (tagger.recurrent.weight_ih_l0.data[:, 4:] == 0).all()
    spelled = tagger.characters.embedding.weight.data
    assert (spelled != 0).all()
    trainer.model.train()
    trainer.run()
    assert (tagger.recurrent.weight_ih_l0.data[:, 4:] != 0).any()  # it learns to use the spelling


@pytest.mark.parametrize(
    ("vocabulary", "labels", "expected"),
    [
        ("keep", ["b", "a"], ("a", "b", "c")),
        ("keep", ["c", "d"], ("c", "d")),
        ("extend", ["c", "d"], ("a", "b", "c", "d")),
        ("new", ["b", "c"], ("b", "c")),
    ],
)
def test_rows_go_with_their_classes(train, tmp_path, vocabulary, labels, expected):
    small = {**SMALL, "hidden_size": 3, "minimum_count": 1}
    files = labelled(*[("oh", "a"), ("ah", "b"), ("hm", "c")] * 6)
    train("model", CLASSIFY, files, **small, **TABLE)
    start = Start(tmp_path / "model", vocabulary)
    files = labelled(*[("oh", labels[0]), ("ah", labels[1])] * 9)
    trainer = train("tuned", CLASSIFY, files, start, False, **SMALL, **TABLE)
    assert trainer.model.codec.classes == expected
    old, new = weights(start.model), weights(trainer.model)
    for number, label in enumerate(expected):
        for name in ("output.weight", "output.bias"):
            if label in "abc":
                np.testing.assert_array_equal(new[name][number], old[name]["abc".index(label)])
            else:
                assert not np.isclose(new[name][number], old[name]).any()
    np.testing.assert_array_equal(
        new["recurrent.weight_hh_l0_reverse"], old["recurrent.weight_hh_l0_reverse"]
    )


def test_a_translator_keeps_each_side(train, tmp_path):
    small = {**SMALL, "hidden_size": 4, "minimum_count": 1}
    train("model", TRANSLATE, {"a.en": "a dog\nthe cat\n" * 9, "a.de": "ein hund\ndie katze\n" * 9},
          **small)  # fmt: skip
    start = Start(tmp_path / "model", "extend")
    files = {"b.en": "a cow\n" * 20, "b.de": "eine kuh\n" * 20}
    trainer = train("tuned", TRANSLATE, files, start, False, **SMALL, minimum_count=1)
    codec, old = trainer.model.codec, start.model.codec
    for side in ("source", "target"):
        assert codec[side].words[: len(old[side].words)] == old[side].words
    assert codec["source"].words[-1:] == ("cow",)
    assert codec["target"].words[-2:] == ("eine", "kuh")
    before, after = weights(start.model), weights(trainer.model)
    grown = [name for name in after if after[name].shape != before[name].shape]
    assert len(grown) == 3  # two embeddings, of which one is tied to the output, and a bias
    for name in after:
        rows = len(before[name])
        np.testing.assert_array_equal(after[name][:rows], before[name])
        for row in after[name][rows:]:
            np.testing.assert_array_equal(row, before[name].mean(axis=0))


def test_series_keep_their_standardisation(train, tmp_path):
    rows = "1,2,4:3,1,1:a\n2,3:5,4:b\n"
    train("model", CLASSIFY, {"s.ts": "@data\n" + rows * 9}, **SMALL, hidden_size=3)
    start = Start(tmp_path / "model")
    other = {"o.ts": "@data\n" + rows.replace("1", "7") * 9}
    trainer = train("tuned", CLASSIFY, other, start, False, **SMALL)
    np.testing.assert_array_equal(trainer.model.codec.mean, start.model.codec.mean)
    start = Start(tmp_path / "model", "new")
    trainer = train("other", CLASSIFY, other, start, False, **SMALL)
    assert (trainer.model.codec.mean != start.model.codec.mean).any()
    one = {"one.ts": "@data\n" + "1,2,4:a\n2,3:b\n" * 9}
    with pytest.raises(DataError, match=r"the series have 1 channels; .* start from have 2"):
        train("x", CLASSIFY, one, Start(tmp_path / "model"), **SMALL)
    with pytest.raises(DataError, match="reads series, but the files hold texts"):
        train("x", CLASSIFY, labelled(*[("a", "b"), ("b", "c")] * 9), Start(tmp_path / "model"),
              **SMALL, **TABLE)  # fmt: skip


@pytest.mark.parametrize(
    ("task", "vocabulary", "changes", "message"),
    [
        (LANGUAGE_MODEL, "keep", {"hidden_size": 6},
         "hidden_size 6 would change the shape of the weights, which come from .*model, where it "
         "is 5; omit it"),
        (LANGUAGE_MODEL, "keep", {"num_layers": 3}, "num_layers 3 would change the shape"),
        (LANGUAGE_MODEL, "keep", {"layer_norm": True}, "layer_norm True would change the shape"),
        (LANGUAGE_MODEL, "keep", {"dtype": "float64"}, "dtype 'float64' would change the shape"),
        (LANGUAGE_MODEL, "keep", {"tied": True, "embedding_size": 5},
         "(tied|embedding_size) .* would change the shape"),
        (LANGUAGE_MODEL, "keep", {"cell": "gru"}, "cell 'gru': .*model, .* trained with 'lstm'"),
        (LANGUAGE_MODEL, "keep", {"forget_bias": 2.0}, "forget_bias 2.0: .* trained with 1.0"),
        (LANGUAGE_MODEL, "keep", {"level": "word"}, "level 'word': .* trained with 'char'"),
        (LANGUAGE_MODEL, "new", {"level": "word"}, "level 'word': .* trained with 'char'"),
        (LANGUAGE_MODEL, "keep", {"minimum_count": 2}, "minimum_count: the vocabulary of .* kept"),
        (LANGUAGE_MODEL, "keep", {"vocabulary_size": 9}, "vocabulary_size: the vocabulary of "),
        (CLASSIFY, "keep", {"hidden_size": 6}, "hidden_size 6: .*model, .* trained with 5; omit"),
        (CLASSIFY, "keep", {"bidirectional": True}, "bidirectional True: .* trained with False"),
        (CLASSIFY, "extend", {"level": "word"}, "level 'word': .* trained with 'char'"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_the_weights(train, tmp_path, task, vocabulary, changes, message):
    train("model", LANGUAGE_MODEL, {"a.txt": "to be or not to be\n" * 12}, **LM)
    start = Start(tmp_path / "model", vocabulary)
    with pytest.raises(ValueError, match=message):
        start.options(task, **SMALL, **changes)
    free = {"dropout": 0.3, "locked_dropout": True, "weight_dropout": 0.1, "zoneout": 0.1}
    made = start.options(task, **SMALL, **free)
    assert (made.hidden_size, made.locked_dropout, made.weight_dropout) == (5, True, 0.1)


def test_models_that_cannot_be_the_start(train, tmp_path):
    text = {"a.txt": "to be or not to be\n" * 12}
    train("model", LANGUAGE_MODEL, text, **LM)
    table = labelled(*[("oh", "a"), ("ah", "b")] * 9)
    train("classifier", CLASSIFY, table, **SMALL, **TABLE, hidden_size=3)
    with pytest.raises(ArtifactError, match="classifier: is a model of the task classify, from wh"):
        train("x", LANGUAGE_MODEL, text, Start(tmp_path / "classifier"), **SMALL)
    with pytest.raises(ArtifactError, match=r"cannot start; give one of translate$"):
        Start(tmp_path / "model").options(TRANSLATE)
    with pytest.raises(DataError, match=r"a tagger reads words; .* reads at level 'char'"):
        train("x", TAG, {"t.tsv": "It\tP\nis\tV\n\n" * 9}, Start(tmp_path / "model"), **SMALL,
              tag_column=2)  # fmt: skip
    with pytest.raises(DataError, match=r"'Z' .* extend the vocabulary of .*--extend-vocabulary\)"):
        train("x", LANGUAGE_MODEL, {"z.txt": "toZ\n" * 40}, Start(tmp_path / "model"), **SMALL)
    with pytest.raises(DataError, match=r"model and the new files have no tokens in common"):
        train("x", LANGUAGE_MODEL, {"z.txt": "XYZ" * 40}, Start(tmp_path / "model", "new"),
              **SMALL, minimum_count=1)  # fmt: skip
    with pytest.raises(ValueError, match="vocabulary 'mine' is not one of keep, extend, new"):
        Start(tmp_path / "model", "mine")
    with pytest.raises(ArtifactError, match="no such folder"):
        Start(tmp_path / "gone")
    options = LANGUAGE_MODEL.options.make(**{**LM, "hidden_size": 9})
    with pytest.raises(
        ValueError, match=r"recurrent.weight_ih_l0 has shape \[20, 4\] in .*model, but \["
    ):
        prepare_training(
            LANGUAGE_MODEL, options, tmp_path / "x", [tmp_path / "a.txt"],
            start=Start(tmp_path / "model"),
        )  # fmt: skip
    assert not (tmp_path / "x").exists()


def test_the_model_may_be_replaced_by_what_becomes_of_it(train, tmp_path):
    train("model", LANGUAGE_MODEL, {"a.txt": "to be or not to be\n" * 12}, **LM)
    start = Start(tmp_path / "model")
    options = start.options(LANGUAGE_MODEL, **SMALL)
    trainer = prepare_training(
        LANGUAGE_MODEL, options, tmp_path / "model", [tmp_path / "a.txt"], start=start,
        overwrite=True,
    )  # fmt: skip
    trainer.run()
    assert trainer.progress.step == 3


class Watch(Callback):
    """Which parameters have changed since the beginning, by epoch."""

    def __init__(self, model):
        self.model, self.before, self.changed = model, weights(model), {}

    def on_step(self, trainer, loss):
        epoch = (trainer.progress.step - 1) // trainer.epoch_steps
        after = weights(self.model)
        moved = {name for name in after if (after[name] != self.before[name]).any()}
        self.changed[epoch] = self.changed.get(epoch, set()) | moved


def test_freezing_unfreezing_and_rates_are_options(train, tmp_path):
    train("model", LANGUAGE_MODEL, {"a.txt": "to be or not to be\n" * 12}, **LM)
    options = {
        **SMALL, "max_steps": None, "epochs": 3, "freeze": ["embedding.*", "recurrent.bias_*_l1"],
        "gradual_unfreezing": True, "discriminative_factor": 2.0, "learning_rate": 0.08,
    }  # fmt: skip
    table = labelled(*[("to be", "a"), ("or not", "b")] * 9)
    start = Start(tmp_path / "model")
    trainer = train("tuned", CLASSIFY, table, start, False, **options, **TABLE, dropout=0.0)
    groups = trainer.optimizer.groups
    rates = {group["parameters"][0]: group["learning_rate"] for group in groups}
    assert rates == pytest.approx({
        "embedding.weight": 0.01, "recurrent.weight_ih_l0": 0.02, "recurrent.weight_ih_l1": 0.04,
        "output.weight": 0.08,
    })  # fmt: skip
    watch = Watch(trainer.model)
    trainer.callbacks.append(watch)
    trainer.run()
    output = {"output.weight", "output.bias"}
    last = {"recurrent.weight_ih_l1", "recurrent.weight_hh_l1"}
    first = {f"recurrent.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    assert watch.changed == {0: output, 1: output | last, 2: output | last | first}
    training = json.loads((tmp_path / "tuned" / "config.json").read_text())["training"]
    assert training["freeze"] == ["embedding.*", "recurrent.bias_*_l1"]
    assert training["gradual_unfreezing"] is True
    assert training["discriminative_factor"] == 2.0
    assert CLASSIFY.load_options(tmp_path / "tuned").freeze == (
        "embedding.*",
        "recurrent.bias_*_l1",
    )


def test_a_pattern_without_a_parameter_harms_nothing(train, tmp_path):
    train("model", LANGUAGE_MODEL, {"a.txt": "to be or not to be\n" * 12}, **LM)
    config = (tmp_path / "model" / "config.json").read_text()
    options = LANGUAGE_MODEL.options.make(**LM, freeze=["embeding.*"])
    with pytest.raises(ValueError, match=r"no parameter is named 'embeding\.\*'; expected embed"):
        prepare_training(
            LANGUAGE_MODEL, options, tmp_path / "model", [tmp_path / "a.txt"], overwrite=True
        )
    assert (tmp_path / "model" / "config.json").read_text() == config
    with pytest.raises(ValueError, match="discriminative_factor must be at least 1 and finite"):
        LANGUAGE_MODEL.options.make(**LM, discriminative_factor=0.5)


def test_words_and_marks_keep_apart():
    """A written `<eos>` is a word; the mark is none that a text could write."""
    old = WordTokenizer.fit(["a <eos> b\n"])
    new = old.extended(WordTokenizer.fit(["c <bos> <eos> a\n"]))
    assert new.words[: len(old.words)] == old.words
    assert set(new.words[len(old.words) :]) == {"c", "<bos>"}
    assert new.start_id == old.start_id
    assert new.decode(new.encode("a <eos> c <bos>\n")) == "a <eos> c <bos>\n"
