"""A training that was stopped and continues is, bit for bit, one that was never stopped."""

import json
import math

import pytest

from anaphora import random
from anaphora.artifact import ArtifactError
from anaphora.cells import cell
from anaphora.equations import sigmoid, tanh
from anaphora.training import (
    LANGUAGE_MODEL,
    Callback,
    LanguageModelOptions,
    prepare_training,
    resume_training,
)


@cell(gates="f n", state="h", parameters="p")
def forgetful(f, n, h, p):
    f = sigmoid(f + p * h)
    return f * h + (1 - f) * tanh(n)


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
    "trained states": {"trainable_state": True, "num_layers": 2, "dropout": 0.2},
    "accumulated": {"accumulate": 3, "dropout": 0.3, "warm_up": 3, "batch_size": 4},
    "lazy": {"lazy_rows": True, "weight_decay": 0.1, "dropout": 0.2},
    "averaged": {"ema_decay": 0.9, "dropout": 0.3, "batch_size": 12},
    "monitored": {"monitor": "perplexity", "patience": 50, "evaluate_every": 5},
    "fine-tuned": {
        "freeze": ["*bias*l0"], "gradual_unfreezing": True, "discriminative_factor": 2.6,
        "num_layers": 2, "dropout": 0.2,
    },
    "bfloat16": {"matmul_precision": "bfloat16", "num_layers": 2, "dropout": 0.2},
    "own cell": {"cell": forgetful, "dropout": 0.2, "num_layers": 2},
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
    options = LanguageModelOptions.make(
        "char-small",
        **{
            "hidden_size": 5, "embedding_size": 4, "batch_size": 8, "window": 16, "epochs": 3,
            "evaluation_batch_size": 2, "log_every": 4, "evaluate_every": 7, **changes,
        },
    )  # fmt: skip
    return prepare_training(LANGUAGE_MODEL, options, folder, [text])


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
    shown = json.dumps(random.get_state())
    return records, config, last, state, averages, schedule, best, shown


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopped_anywhere(tmp_path, text, variant):
    complete = prepare(tmp_path / "complete", text, **VARIANTS[variant])
    complete.run()
    expected = result(complete)
    epoch, steps = complete.epoch_steps, complete.progress.step
    assert steps == 3 * epoch
    # Within an epoch; before, at and after its end; where an evaluation and a record are due.
    stops = sorted({1, epoch - 1, epoch, epoch + 1, 7, 8, 28, 2 * epoch, steps - 1})
    assert len(stops) >= 8

    trainer = prepare(tmp_path / "stopped", text, **VARIANTS[variant])
    for stop in stops:
        trainer.callbacks.append(StopAt(stop))
        assert trainer.run() == "stopped"
        assert trainer.progress.step == stop
        random.seed(stop)  # what was sampled in between must not matter
        trainer = resume_training(LANGUAGE_MODEL, tmp_path / "stopped")
        assert trainer.progress.step == stop
    trainer.run()
    for found, expected_values in zip(result(trainer), expected, strict=True):
        assert found == expected_values


def test_an_older_checkpoint_drops_the_metrics_after_it(tmp_path, text):
    """As after a kill: the checkpoint is from step 10, metrics and the best model from later."""
    complete = prepare(tmp_path / "complete", text, dropout=0.2)
    complete.run()
    expected = result(complete)
    trainer = prepare(tmp_path / "killed", text, dropout=0.2)
    trainer.callbacks.append(StopAt(10))
    trainer.run()
    checkpoint = trainer.directory.checkpoint.read_bytes()
    trainer = resume_training(LANGUAGE_MODEL, tmp_path / "killed")
    trainer.run()
    trainer.directory.checkpoint.write_bytes(checkpoint)
    with trainer.directory.metrics.open("a") as file:
        file.write('{"kind": "tra')
    trainer = resume_training(LANGUAGE_MODEL, tmp_path / "killed")
    assert trainer.progress.step == 10
    assert max(record["step"] for record in trainer.directory.read_metrics()) <= 10
    trainer.run()
    assert result(trainer) == expected


def test_killed_before_the_first_step(tmp_path, text):
    complete = prepare(tmp_path / "complete", text)
    complete.run()
    expected = result(complete)
    prepare(tmp_path / "killed", text)
    random.seed(77)
    trainer = resume_training(LANGUAGE_MODEL, tmp_path / "killed")
    trainer.run()
    assert result(trainer) == expected


def test_an_evaluation_that_was_given_up_is_the_first_to_come(tmp_path, text, monkeypatch):
    complete = prepare(tmp_path / "complete", text)
    complete.run()
    expected = result(complete)
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
    trainer = resume_training(LANGUAGE_MODEL, tmp_path / "stopped")
    trainer.run()
    assert result(trainer) == expected


def test_more_epochs(tmp_path, text):
    constant = {"schedule": "constant", "evaluate_every": 0}
    complete = prepare(tmp_path / "complete", text, epochs=3, **constant)
    complete.run()
    trainer = prepare(tmp_path / "extended", text, epochs=2, **constant)
    trainer.run()
    assert resume_training(LANGUAGE_MODEL, tmp_path / "extended").run() == "2 epochs done"
    resume_training(LANGUAGE_MODEL, tmp_path / "extended", {"epochs": 3})
    # The new limit is kept, whether or not a better model comes.
    assert resume_training(LANGUAGE_MODEL, tmp_path / "extended").options.epochs == 3
    trainer = resume_training(LANGUAGE_MODEL, tmp_path / "extended")
    assert trainer.run() == "3 epochs done"
    assert result(trainer) == (*result(complete)[:7], result(trainer)[7])


def test_another_kind_of_limit_takes_the_place_of_the_old(tmp_path, text):
    prepare(tmp_path / "model", text, epochs=1, schedule="constant").run()
    trainer = resume_training(LANGUAGE_MODEL, tmp_path / "model", {"max_steps": 30, "patience": 2})
    assert (trainer.options.epochs, trainer.options.max_steps) == (None, 30)
    assert trainer.options.patience == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hidden_size": 3},
            "hidden_size: cannot change when a training is resumed; only epochs",
        ),
        ({"learning_rate": 1.0, "seed": 2}, "^seed: cannot change"),
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        (
            {"minutes": 1.0, "schedule": "cosine"},
            "cosine ends at a known step: give epochs or max_steps \\(minutes may be given too\\)",
        ),
        ({"decay": 0.1}, "decay: the schedule cosine has no such option; omit it, or choose"),
        (
            {"schedule": "plateau", "constant_epochs": 3},
            "constant_epochs: the schedule plateau",
        ),
        ({"learning_rate": -1.0}, "learning_rate must be more than 0"),
    ],
)
def test_what_may_not_change(tmp_path, text, changes, message):
    prepare(tmp_path / "model", text)
    with pytest.raises(ValueError, match=message):
        resume_training(LANGUAGE_MODEL, tmp_path / "model", changes)


def test_what_cannot_be_resumed_is_named(tmp_path, text):
    with pytest.raises(ArtifactError, match="missing: no such folder"):
        resume_training(LANGUAGE_MODEL, tmp_path / "missing")
    (tmp_path / "other").mkdir()
    with pytest.raises(ArtifactError, match="other: is not a model directory"):
        resume_training(LANGUAGE_MODEL, tmp_path / "other")
    trainer = prepare(tmp_path / "model", text)
    trainer.run()
    home = trainer.directory
    complete = home.checkpoint.read_bytes()

    config = home.config.read_text()
    home.config.write_text(config.replace('"hidden_size": 5', '"hidden_size": 6'))
    with pytest.raises(ArtifactError, match=r"config\.json: model\.hidden_size 6 makes"):
        resume_training(LANGUAGE_MODEL, home.path)
    home.config.write_text(config.replace('"window": 16', '"window": "wide"'))
    with pytest.raises(ArtifactError, match=r"training.window is 'wide'; expected int"):
        resume_training(LANGUAGE_MODEL, home.path)
    home.config.write_text(config)

    home.checkpoint.write_bytes(complete[:-10])
    with pytest.raises(ArtifactError, match=r"state\.safetensors: is truncated"):
        resume_training(LANGUAGE_MODEL, home.path)
    home.checkpoint.write_bytes(complete)
    ids = home.checkpoint.parent / "train.npy"
    ids.rename(tmp_path / "ids.npy")
    with pytest.raises(ArtifactError, match=r"cannot be resumed: .*train\.npy"):
        resume_training(LANGUAGE_MODEL, home.path)
    home.checkpoint.unlink()
    with pytest.raises(ArtifactError, match="has no checkpoint to resume from; train ag"):
        resume_training(LANGUAGE_MODEL, home.path)


# What --resume may change


class Rates(Callback):
    """Keeps the learning rate of every step, by its number."""

    def __init__(self):
        self.of = {}

    def on_step(self, trainer, loss):
        self.of[trainer.progress.step] = trainer.optimizer.learning_rate


def stopped(tmp_path, text, step, **changes):
    """The learning rates of a training of 20 steps that was stopped after some."""
    given = {"epochs": None, "max_steps": 20, "learning_rate": 0.01, **changes}
    trainer = prepare(tmp_path / "model", text, **given)
    rates = Rates()
    trainer.callbacks += [rates, StopAt(step)]
    trainer.run()
    return rates.of


def resumed(tmp_path, changes=None, stop=None):
    """The learning rates of the training that continues, and what was said."""
    said, rates = [], Rates()
    trainer = resume_training(LANGUAGE_MODEL, tmp_path / "model", changes, said.append)
    trainer.callbacks += [rates, StopAt(stop)]
    trainer.run()
    return rates.of, said


def config_of(tmp_path):
    return json.loads((tmp_path / "model" / "config.json").read_text())


def half_cosine(rate, share):
    return rate * (1 + math.cos(math.pi * share)) / 2


def test_a_cosine_that_is_extended_goes_on_from_the_present_learning_rate(tmp_path, text):
    before = stopped(tmp_path, text, 16)
    assert before[16] == pytest.approx(half_cosine(0.01, 15 / 20))
    rates, said = resumed(tmp_path, {"max_steps": 40}, stop=25)
    rates |= resumed(tmp_path)[0]  # a resume without changes keeps them
    assert list(rates) == list(range(17, 41))
    for step, rate in rates.items():
        assert rate == pytest.approx(half_cosine(before[16], (step - 17) / 24)), step
    assert max(rates.values()) == before[16]
    assert said == [
        f"the schedule restarts at step 16: cosine, from the learning rate {before[16]:.3g}"
    ]
    (change,) = config_of(tmp_path)["changes"]
    assert change == {
        "step": 16, "epoch": change["epoch"], "learning_rate": before[16], "warm_up_step": 0,
        "options": {"max_steps": 40},
    }  # fmt: skip
    assert config_of(tmp_path)["training"]["max_steps"] == 40


def test_limits_that_leave_the_end_of_a_cosine_change_nothing(tmp_path, text):
    complete = stopped(tmp_path / "complete", text, None)
    before = stopped(tmp_path, text, 9)
    rates, said = resumed(tmp_path, {"max_steps": 20, "minutes": 60.0})
    assert before | rates == complete
    assert said == []
    assert "changes" not in config_of(tmp_path)


def test_a_cosine_begins_at_a_learning_rate_that_is_given(tmp_path, text):
    before = stopped(tmp_path, text, None)
    assert before[20] < 1e-4
    rates, _ = resumed(tmp_path, {"max_steps": 30, "learning_rate": 0.005})
    for step, rate in rates.items():
        assert rate == pytest.approx(half_cosine(0.005, (step - 21) / 10)), step
    assert config_of(tmp_path)["training"]["learning_rate"] == 0.005


def test_a_cosine_that_has_ended_says_that_nothing_more_is_learnt(tmp_path, text):
    before = stopped(tmp_path, text, None)
    rates, said = resumed(tmp_path, {"max_steps": 30})
    assert max(rates.values()) == before[20]
    assert said[1].startswith(
        f"a learning rate of {before[20]:.3g} is too low to learn: give learning"
    )
    assert "learning_rate too, such as 0.01, the initial one" in said[1]


def test_minutes_alone_make_a_plateau_of_a_cosine(tmp_path, text):
    before = stopped(tmp_path, text, 10)
    rates, said = resumed(tmp_path, {"minutes": 60.0}, stop=15)
    assert rates[11] == before[10]
    assert max(rates.values()) == before[10]
    assert said[0].startswith(
        "the schedule restarts at step 10: plateau, as cosine needs a known last step"
    )
    training = config_of(tmp_path)["training"]
    limits = training["schedule"], training["minutes"], training["max_steps"]
    assert limits == ("plateau", 60, None)
    assert resume_training(LANGUAGE_MODEL, tmp_path / "model").progress.step == 15


def test_a_schedule_and_its_options_may_change(tmp_path, text):
    before = stopped(tmp_path, text, 7)
    epoch = len(resume_training(LANGUAGE_MODEL, tmp_path / "model").batches)
    assert 7 < epoch < 20
    changes = {"schedule": "exponential", "decay": 0.5, "constant_epochs": 1}
    rates, _ = resumed(tmp_path, {**changes, "max_steps": 7 + 3 * epoch})
    for step, rate in rates.items():
        passes = (step - 1) // epoch  # complete before this step; the schedule began in the first
        assert rate == before[7] * 0.5**passes, step
    rates, _ = resumed(tmp_path, {"schedule": "constant", "learning_rate": 0.003, "max_steps": 70})
    assert set(rates.values()) == {0.003}
    assert [change["options"].get("schedule") for change in config_of(tmp_path)["changes"]] == [
        "exponential", "constant",
    ]  # fmt: skip


def test_a_warm_up_goes_on_and_a_new_one_begins_at_the_change(tmp_path, text):
    stopped(tmp_path, text, 3, schedule="constant", warm_up=5)
    rates, _ = resumed(tmp_path, {"learning_rate": 0.1}, stop=8)
    assert [rates[step] for step in (4, 5, 6)] == pytest.approx([0.08, 0.1, 0.1])
    rates, _ = resumed(tmp_path, {"warm_up": 4})
    assert [rates[step] for step in (9, 10, 12, 13)] == pytest.approx([0.025, 0.05, 0.1, 0.1])


@pytest.mark.parametrize(
    "changes",
    [{"max_steps": 40}, {"minutes": 60.0}, {"schedule": "constant", "learning_rate": 0.5}],
)
def test_a_change_survives_a_kill_before_its_first_checkpoint(tmp_path, text, changes):
    stopped(tmp_path, text, 10)
    expected_values = resume_training(
        LANGUAGE_MODEL, tmp_path / "model", changes
    ).schedule.state_dict()
    trainer = resume_training(
        LANGUAGE_MODEL, tmp_path / "model"
    )  # config.json has it, the checkpoint not
    assert trainer.schedule.state_dict() == expected_values
    assert trainer.optimizer.learning_rate == trainer.schedule.learning_rate
    trainer.save_checkpoint()
    trainer.directory.unlock()
    again = resume_training(LANGUAGE_MODEL, tmp_path / "model", {"patience": 3})
    assert again.options.patience == 3
    assert again.schedule.state_dict() == expected_values


def test_what_follows_a_change_is_resumed_bit_for_bit(tmp_path, text):
    for name in ("complete", "parts"):
        stopped(tmp_path / name, text, 10)
        resumed(tmp_path / name, {"max_steps": 30, "learning_rate": 0.02}, stop=12)
    for stop in (13, 20, 21, None):
        resumed(tmp_path / "parts", stop=stop)
    resumed(tmp_path / "complete")
    found, expected = (
        resume_training(LANGUAGE_MODEL, tmp_path / n / "model") for n in ("parts", "complete")
    )
    for one, other in zip(result(found), result(expected), strict=True):
        assert one == other


def test_a_limit_that_was_passed_before_is_reported(tmp_path, text):
    stopped(tmp_path, text, None)
    rates, (said,) = resumed(tmp_path, {"max_steps": 12})
    assert rates == {}
    assert said.startswith(
        "the training is complete already: limits are totals, and it has run for 20 "
    )
    assert "it has run for 20 steps" in said
    rates, _ = resumed(tmp_path, {"max_steps": 22, "learning_rate": 0.02})
    assert list(rates) == [21, 22]


@pytest.mark.parametrize(
    "damaged",
    [5, [7], [{"steps": 3}], [{"step": "x"}], [{"step": -1}], [{"learning_rate": "fast"}]],
)
def test_damaged_records_of_changes_are_named(tmp_path, text, damaged):
    stopped(tmp_path, text, 3)
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps({**config_of(tmp_path), "changes": damaged}))
    with pytest.raises(ArtifactError, match=r"config\.json: changes(\[0\])?(\.\w+)? (is|has no) "):
        resume_training(LANGUAGE_MODEL, tmp_path / "model")
