"""Trainings whose matrix products are in bfloat16: what they compute, record, refuse and say."""

import json
import re

import numpy as np
import pytest

from anaphora import engine, matmul_precision, random
from anaphora.artifact import ArtifactError
from anaphora.data import batchify
from anaphora.models import LanguageModel
from anaphora.optim import SGD, clip_grad_norm
from anaphora.tensor import detach
from anaphora.training import (
    LANGUAGE_MODEL,
    TASKS,
    Callback,
    LanguageModelOptions,
    Trainer,
    TrainingOptions,
    evaluate,
    find_learning_rate,
    prepare_training,
    resume_training,
)

V = 11
IDS = np.random.default_rng(4).integers(0, V, 400)


class Watch(Callback):
    def __init__(self):
        self.notices, self.records, self.precisions = [], [], set()

    def on_notice(self, trainer, sentence):
        self.notices.append(sentence)

    def on_record(self, trainer, record):
        self.records.append(record)

    def on_step(self, trainer, loss):
        self.precisions.add(engine.current_matmul_precision())


def trainer(precision=None, watch=None, **options):
    random.seed(2)
    model = LanguageModel(V, hidden_size=16, initialization=0.5)
    batches = batchify(IDS, batch_size=4, window=8)
    given = {"max_steps": 5, "evaluate_every": 5, **options}
    return Trainer(
        model, SGD(model.parameters(), 0.5), batches,
        TrainingOptions(**given, matmul_precision=precision), validation=batches,
        callbacks=[watch or Watch()],
    )  # fmt: skip


def weights(trained):
    return {name: p.data.tobytes() for name, p in trained.model.named_parameters()}


def run(around, precision):
    trained = trainer(precision, watch := Watch())
    with matmul_precision(around):
        trained.run()
    assert len(watch.precisions) == 1
    return weights(trained), watch


@pytest.fixture(scope="module")
def expected():
    """What a training by hand leaves: its weights, and its validation loss."""
    found = {}
    for precision in ("float32", "bfloat16"):
        by_hand = trainer()
        state = None
        with matmul_precision(precision):
            for batch, _ in zip(by_hand.batches, range(5), strict=False):
                loss, state = by_hand.model.loss(batch, state)
                state = detach(state)
                loss.backward()
                norm = clip_grad_norm(by_hand.model.parameters(), by_hand.options.clip_norm)
                assert norm > 0
                by_hand.optimizer.step()
                by_hand.optimizer.zero_grad()
            found[precision] = weights(by_hand), evaluate(by_hand.model, by_hand.batches).loss
    assert found["float32"][0] != found["bfloat16"][0]
    assert found["float32"][1] != found["bfloat16"][1]
    return found


@pytest.mark.parametrize(
    ("around", "precision", "used"),
    [
        ("float32", None, "float32"),
        ("float32", "bfloat16", "bfloat16"),
        ("bfloat16", None, "bfloat16"),  # that of the caller
        ("bfloat16", "float32", "float32"),
    ],
)
def test_a_training_has_the_precision_of_its_options(around, precision, used, expected):
    found, watch = run(around, precision)
    assert watch.precisions == {used}
    assert found == expected[used][0]
    assert watch.records[-1]["loss"] == expected[used][1]  # evaluations too
    assert engine.current_matmul_precision() == "float32"


def test_evaluations_and_sweeps_have_it_too(monkeypatch):
    trained, used = trainer("bfloat16"), []
    monkeypatch.setattr(
        trained,
        "evaluator",
        lambda *given: used.append(engine.current_matmul_precision()) or evaluate(*given),
    )
    trained.evaluate()
    assert used == ["bfloat16"]
    losses = {}
    for precision in ("float32", "bfloat16"):
        losses[precision] = find_learning_rate(trainer(precision), progress=False).losses
    with matmul_precision("bfloat16"):
        around = find_learning_rate(trainer(), progress=False).losses
    np.testing.assert_array_equal(losses["bfloat16"], around)
    assert not np.array_equal(losses["float32"], around)


def test_it_is_shown():
    assert "matmul_precision=bfloat16" in repr(trainer("bfloat16"))
    assert "matmul_precision" not in repr(trainer())


@pytest.mark.parametrize(("unit", "slow"), [("tiles", 0), ("dots", 0), ("vectors", 1), (None, 1)])
def test_it_is_said_once_that_bfloat16_is_slower_here(unit, slow, monkeypatch):
    monkeypatch.setattr(engine, "info", lambda: {"bfloat16": unit})
    for precision, count in (("bfloat16", slow), ("float32", 0)):
        trained = trainer(precision, watch := Watch())
        trained.run()
        trained.options.max_steps = 7
        trained.run()
        assert watch.notices == count * [
            "matrix products in bfloat16 are slower than in float32 here: the engine found neither "
            "AVX512_BF16 nor AMX"
        ]


@pytest.mark.parametrize("given", ["bf16", "float64", ""])
def test_other_precisions_are_refused(given):
    message = f"^matmul_precision {given!r} is not one of float32, bfloat16$"
    with pytest.raises(ValueError, match=message):
        TrainingOptions(max_steps=1, matmul_precision=given)
    with pytest.raises(ValueError, match=message):
        TASKS["tag"].options.make(matmul_precision=given)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_models_of_float64_have_no_other_precision(task):
    assert task.options.make(matmul_precision="float32", dtype="float64").dtype == "float64"
    assert task.options.make(matmul_precision="bfloat16").matmul_precision == "bfloat16"
    message = "^matmul_precision 'bfloat16' is for models of float32, not of float64; omit it, or"
    with pytest.raises(ValueError, match=message):
        task.options.make(matmul_precision="bfloat16", dtype="float64")


# Model directories -------------------------------------------------------------------------------


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {n} is one of {n * n} lines\n" for n in range(60)))
    return path


def prepare(folder, text, **options):
    small = {"hidden_size": 5, "embedding_size": 4, "batch_size": 8, "window": 16, "max_steps": 4}
    made = LanguageModelOptions.make("char-small", **small, **options)
    return prepare_training(LANGUAGE_MODEL, made, folder, [text])


def recorded(folder):
    return json.loads((folder / "config.json").read_text())["training"]["matmul_precision"]


def test_the_precision_is_recorded_and_kept(tmp_path, text):
    results = {}
    for name, around, options in (
        ("given", "float32", {"matmul_precision": "bfloat16"}),
        ("around", "bfloat16", {}),
        ("float32", "bfloat16", {"matmul_precision": "float32"}),
        ("default", "float32", {}),
    ):
        with matmul_precision(around):
            prepared = prepare(tmp_path / name, text, **options)
        prepared.run()
        with matmul_precision("float32" if around == "bfloat16" else "bfloat16"):
            resumed = resume_training(LANGUAGE_MODEL, tmp_path / name, {"max_steps": 8})
            resumed.run()
        results[name] = recorded(tmp_path / name), weights(resumed)
    assert results["given"] == results["around"]
    assert results["float32"] == results["default"]
    assert [results[name][0] for name in ("given", "default")] == ["bfloat16", "float32"]
    assert results["given"][1] != results["default"][1]


def test_a_directory_from_before_is_of_float32(tmp_path, text):
    prepare(tmp_path / "model", text).run()
    config = tmp_path / "model" / "config.json"
    values = json.loads(config.read_text())
    del values["training"]["matmul_precision"]
    config.write_text(json.dumps(values))
    with matmul_precision("bfloat16"):
        resumed = resume_training(LANGUAGE_MODEL, tmp_path / "model", {"max_steps": 8})
        resumed.run()
    expected = prepare(tmp_path / "other", text)
    expected.run()
    expected = resume_training(LANGUAGE_MODEL, tmp_path / "other", {"max_steps": 8})
    expected.run()
    assert weights(resumed) == weights(expected)


def test_a_model_of_float64_is_trained_as_ever(tmp_path, text):
    with matmul_precision("bfloat16"):
        prepare(tmp_path / "model", text, dtype="float64").run()
    assert recorded(tmp_path / "model") == "float32"


def test_resuming_does_not_change_it(tmp_path, text):
    prepare(tmp_path / "model", text, matmul_precision="bfloat16").run()
    with pytest.raises(ValueError, match=r"^matmul_precision: cannot change when a training is"):
        resume_training(LANGUAGE_MODEL, tmp_path / "model", {"matmul_precision": "float32"})
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace('"bfloat16"', '"bf16"'))
    message = re.escape("training.matmul_precision 'bf16' is not one of float32, bfloat16")
    with pytest.raises(ArtifactError, match=message):
        resume_training(LANGUAGE_MODEL, tmp_path / "model")
