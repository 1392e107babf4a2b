"""A training that was stopped and goes on is, bit for bit, one that was never stopped."""

import json

import pytest

from anaphora import random
from anaphora.artifact import ArtifactError
from anaphora.training import (
    Callback,
    LanguageModelOptions,
    prepare_language_model,
    resume_language_model,
)

TEXT = "".join(
    f"line {n} of a text, which is {n * n} words after {n % 7} others\n" for n in range(40)
)
VARIANTS = {
    "stream": {"warm_up": 3, "dropout": 0.3, "num_layers": 2},
    "sentences": {
        "level": "word", "batching": "sentences", "sentence_start": True, "dropout": 0.3,
        "batch_size": 3, "minimum_count": 2,
    },
    "gru": {"cell": "gru", "dropout": 0.2, "optimizer": "sgd", "momentum": 0.9,
            "schedule": "plateau"},
    "regularised": {
        "dropout": 0.3, "locked_dropout": True, "embedding_dropout": 0.1, "weight_dropout": 0.2,
        "zoneout": 0.1, "layer_norm": True, "activation_penalty": 2.0, "temporal_penalty": 1.0,
        "num_layers": 2,
    },
    "asgd": {"optimizer": "asgd", "schedule": "nonmonotonic", "learning_rate": 5.0},
}  # fmt: skip


class StopAt(Callback):
    """Asks to stop after a step, or when a number of evaluations was recorded."""

    def __init__(self, step):
        self.step = step

    def on_step(self, trainer, loss):
        if trainer.progress.step == self.step:
            trainer.request_stop("stopped")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def prepare(folder, text, **changes):
    options = LanguageModelOptions.from_preset(
        "char-small",
        **{
            "hidden_size": 5, "embedding_size": 4, "batch_size": 8, "window": 16, "epochs": 3,
            "evaluation_batch_size": 2, "log_every": 4, "evaluate_every": 7, **changes,
        },
    )  # fmt: skip
    return prepare_language_model(options, folder, [text])


def result(trainer):
    """All that a training leaves, without the times."""
    directory = trainer.directory
    records = [
        {name: value for name, value in record.items() if name != "seconds"}
        for record in directory.read_metrics()
    ]
    config = json.loads(directory.config.read_text())
    config["results"].pop("seconds")
    state = trainer.optimizer.state_dict()
    last = {name: p.data.tobytes() for name, p in trainer.model.named_parameters()}
    averages = {name: array.tobytes() for name, array in state.pop("arrays").items()}
    schedule = trainer.schedule.state_dict()
    best = directory.weights.read_bytes()
    drawn = json.dumps(random.get_state())
    return records, config, last, state, averages, schedule, best, drawn


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_anywhere(tmp_path, text, variant):
    whole = prepare(tmp_path / "whole", text, **VARIANTS[variant])
    whole.run()
    expected = result(whole)
    epoch, steps = len(whole.batches), whole.progress.step
    assert steps == 3 * epoch
    # Within an epoch; before, at and after its end; where an evaluation and a record are due.
    stops = sorted({1, epoch - 1, epoch, epoch + 1, 7, 8, 28, 2 * epoch, steps - 1})
    assert len(stops) >= 8

    trainer = prepare(tmp_path / "stopped", text, **VARIANTS[variant])
    for stop in stops:
        trainer.callbacks.append(StopAt(stop))
        assert trainer.run() == "stopped"
        assert trainer.progress.step == stop
        random.seed(stop)  # what was drawn in between must not matter
        trainer = resume_language_model(tmp_path / "stopped")
        assert trainer.progress.step == stop
    trainer.run()
    for found, wanted in zip(result(trainer), expected, strict=True):
        assert found == wanted


def test_an_older_checkpoint_drops_the_metrics_after_it(tmp_path, text):
    """As after a kill: the checkpoint is from step 10, metrics and the best model from later."""
    whole = prepare(tmp_path / "whole", text, dropout=0.2)
    whole.run()
    expected = result(whole)
    trainer = prepare(tmp_path / "killed", text, dropout=0.2)
    trainer.callbacks.append(StopAt(10))
    trainer.run()
    checkpoint = trainer.directory.checkpoint.read_bytes()
    trainer = resume_language_model(tmp_path / "killed")
    trainer.run()
    trainer.directory.checkpoint.write_bytes(checkpoint)
    with trainer.directory.metrics.open("a") as file:
        file.write('{"kind": "tra')
    trainer = resume_language_model(tmp_path / "killed")
    assert trainer.progress.step == 10
    assert max(record["step"] for record in trainer.directory.read_metrics()) <= 10
    trainer.run()
    assert result(trainer) == expected


def test_killed_before_the_first_step(tmp_path, text):
    whole = prepare(tmp_path / "whole", text)
    whole.run()
    expected = result(whole)
    prepare(tmp_path / "killed", text)
    random.seed(77)
    trainer = resume_language_model(tmp_path / "killed")
    trainer.run()
    assert result(trainer) == expected


def test_an_evaluation_that_was_given_up_is_the_first_to_come(tmp_path, text, monkeypatch):
    whole = prepare(tmp_path / "whole", text)
    whole.run()
    expected = result(whole)
    trainer = prepare(tmp_path / "stopped", text)
    original = trainer.model.loss

    def loss(batch, state=None):
        if not trainer.model.training:
            trainer.request_stop("stopped")
        return original(batch, state)

    monkeypatch.setattr(trainer.model, "loss", loss)
    trainer.run()
    assert trainer.progress.step == 7
    assert trainer.progress.best_loss is None
    assert all(record["kind"] == "train" for record in trainer.directory.read_metrics())
    trainer = resume_language_model(tmp_path / "stopped")
    trainer.run()
    assert result(trainer) == expected


def test_more_epochs(tmp_path, text):
    constant = {"schedule": "constant", "evaluate_every": 0}
    whole = prepare(tmp_path / "whole", text, epochs=3, **constant)
    whole.run()
    trainer = prepare(tmp_path / "extended", text, epochs=2, **constant)
    trainer.run()
    assert resume_language_model(tmp_path / "extended").run() == "2 epochs done"
    resume_language_model(tmp_path / "extended", {"epochs": 3})
    # The new limit is kept, whether or not a better model comes.
    assert resume_language_model(tmp_path / "extended").options.epochs == 3
    trainer = resume_language_model(tmp_path / "extended")
    assert trainer.run() == "3 epochs done"
    assert result(trainer) == (*result(whole)[:7], result(trainer)[7])


def test_another_kind_of_limit_takes_the_place_of_the_old(tmp_path, text):
    prepare(tmp_path / "model", text, epochs=1, schedule="constant").run()
    trainer = resume_language_model(tmp_path / "model", {"max_steps": 30, "patience": 2})
    assert (trainer.options.epochs, trainer.options.max_steps) == (None, 30)
    assert trainer.options.patience == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 3}, "hidden_size: a training that goes on keeps its options; only epochs"),
        ({"learning_rate": 1.0, "seed": 2}, "learning_rate, seed: a training"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1"),
        (
            {"minutes": 1.0},
            "cosine ends at a known step: give epochs or max_steps, with minutes if you like",
        ),
    ],
)
def test_what_may_not_change(tmp_path, text, changes, message):
    prepare(tmp_path / "model", text)
    with pytest.raises(ValueError, match=message):
        resume_language_model(tmp_path / "model", changes)


def test_what_cannot_be_resumed_is_named(tmp_path, text):
    with pytest.raises(ArtifactError, match="missing: no such folder"):
        resume_language_model(tmp_path / "missing")
    (tmp_path / "other").mkdir()
    with pytest.raises(ArtifactError, match="other: is not a model directory"):
        resume_language_model(tmp_path / "other")
    trainer = prepare(tmp_path / "model", text)
    trainer.run()
    home = trainer.directory
    whole = home.checkpoint.read_bytes()

    config = home.config.read_text()
    home.config.write_text(config.replace('"hidden_size": 5', '"hidden_size": 6'))
    with pytest.raises(ArtifactError, match=r"state\.safetensors: this is no checkpoint of this"):
        resume_language_model(home.path)
    home.config.write_text(config.replace('"window": 16', '"window": "wide"'))
    with pytest.raises(ArtifactError, match=r"cannot be resumed: .*window"):
        resume_language_model(home.path)
    home.config.write_text(config)

    home.checkpoint.write_bytes(whole[:-10])
    with pytest.raises(ArtifactError, match=r"state\.safetensors: is truncated"):
        resume_language_model(home.path)
    home.checkpoint.write_bytes(whole)
    ids = home.checkpoint.parent / "train.npy"
    ids.rename(tmp_path / "ids.npy")
    with pytest.raises(ArtifactError, match=r"cannot be resumed: .*train\.npy"):
        resume_language_model(home.path)
    home.checkpoint.unlink()
    with pytest.raises(ArtifactError, match="has no checkpoint, so there is no training to contin"):
        resume_language_model(home.path)
