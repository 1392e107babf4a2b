"""The training loop: truncated BPTT against a loop by hand, evaluation, limits, divergence."""

import dataclasses
import json
import math

import numpy as np
import pytest

from anaphora import engine, nn, ops, random
from anaphora.artifact import ModelDirectory
from anaphora.data import SampledBatches, SequenceBatches, batchify, cover
from anaphora.models import LanguageModel, SequenceClassifier, SequenceRegressor
from anaphora.optim import SGD, clip_grad_norm
from anaphora.tensor import Tensor, detach
from anaphora.training import (
    Callback,
    Trainer,
    TrainingDiverged,
    TrainingOptions,
    evaluate,
)

V = 11
IDS = np.random.default_rng(4).integers(0, V, 200)


def make(**options):
    random.seed(6)
    return LanguageModel(V, hidden_size=5, num_layers=2, **options)


def arrays(model):
    return {name: parameter.data.copy() for name, parameter in model.named_parameters()}


class Record(Callback):
    """Keeps the losses of the steps, and the records."""

    def __init__(self):
        self.losses, self.records, self.reason = [], [], None

    def on_step(self, trainer, loss):
        self.losses.append(loss)

    def on_record(self, trainer, record):
        self.records.append(dict(record))

    def on_stop(self, trainer, reason):
        self.reason = reason

    def of(self, kind, name):
        return [record[name] for record in self.records if record["kind"] == kind]


def run(model, record=None, *, ids=IDS, window=4, validation=None, schedule=None, **options):
    given = {
        "max_steps": 10, "batch_size": 3, "optimizer": "sgd", "learning_rate": 0.5,
        "log_every": 1, **options,
    }  # fmt: skip
    options = TrainingOptions(**given)
    optimizer = SGD(model.named_parameters(), options.learning_rate)
    trainer = Trainer(
        model,
        optimizer,
        batchify(ids, options.batch_size, window),
        options,
        schedule=schedule and schedule(optimizer),
        validation=validation,
        callbacks=[] if record is None else [record],
    )
    return trainer, trainer.run()


@pytest.mark.parametrize("loss_per", ["token", "sequence"])
def test_ten_steps_are_those_of_a_loop_by_hand_bit_for_bit(loss_per):
    trained, record = make(dropout=0.3), Record()
    random.seed(8)
    _, reason = run(trained, record, loss_per=loss_per, clip_norm=1.5)
    assert reason == record.reason == "10 steps done"

    model = make(dropout=0.3)
    parameters = dict(model.named_parameters())
    random.seed(8)
    state, losses = None, []
    length = len(IDS) // 3
    streams = IDS[: 3 * length].reshape(3, length).T  # [N, B]
    for step in range(10):
        window = streams[4 * step : 4 * step + 5]
        logits, state = model(window[:-1], state)
        loss = ops.cross_entropy(logits, window[1:])
        losses.append(loss.item())
        (loss * 4 if loss_per == "sequence" else loss).backward()  # T = 4 tokens a row
        state = detach(state)
        clip_grad_norm(parameters.values(), 1.5)
        for parameter in parameters.values():
            gradient = parameter.grad
            gradient = gradient if isinstance(gradient, np.ndarray) else gradient.dense()
            with parameter.writing() as array:
                array -= np.float32(0.5) * gradient
            parameter.grad = None
    assert record.losses == losses
    for name, array in arrays(trained).items():
        np.testing.assert_array_equal(array, parameters[name].data, err_msg=name)


@pytest.mark.parametrize("loss_per", ["token", "sequence"])
def test_penalties_are_minimised_but_not_reported(loss_per):
    plain, penalized = make(), make(activation_penalty=2.0, temporal_penalty=3.0)
    batch = batchify(IDS, 3, 4)[0]
    penalized.loss(batch)[0].backward()
    gradients = {name: p.grad for name, p in penalized.named_parameters()}
    before = {name: array.copy() for name, array in arrays(penalized).items()}
    penalized.zero_grad()

    record = Record()
    run(penalized, record, loss_per=loss_per, max_steps=1, clip_norm=0.0)
    assert record.losses == [plain.loss(batch)[0].item()]
    np.testing.assert_allclose(record.of("train", "loss"), record.losses)
    factor = 0.5 * (4 if loss_per == "sequence" else 1)  # T = 4 tokens a row
    for name, array in arrays(penalized).items():
        gradient = gradients[name]
        gradient = gradient if isinstance(gradient, np.ndarray) else gradient.dense()
        np.testing.assert_allclose(array, before[name] - factor * gradient, rtol=1e-5, atol=1e-7)
    plain.load_state_dict(penalized.state_dict())
    assert evaluate(penalized, [batch]).loss == evaluate(plain, [batch]).loss


def test_the_state_is_carried_and_the_gradient_is_cut():
    """The second window begins where the first ended, and nothing flows back into the first."""
    trained = make()
    seen = []
    original = trained.loss

    def loss(batch, state=None):
        seen.append(state)
        return original(batch, state)

    trained.loss = loss
    run(trained, max_steps=2, learning_rate=1e-30, clip_norm=0)
    fresh = make()
    batches = batchify(IDS, 3, 4)
    _, after = fresh.loss(batches[0])
    assert seen[0] is None
    for carried, expected in zip(seen[1], after, strict=True):
        np.testing.assert_array_equal(carried.data, expected.data)
        assert not carried.requires_grad
    # Uncut, the gradient would be another one.
    cut, _ = fresh.loss(batches[1], tuple(Tensor(s.data) for s in after))
    cut.backward()
    name = "recurrent.weight_hh_l0"
    found = dict(fresh.named_parameters())[name].grad.copy()
    complete = make()
    _, uncut_state = complete.loss(batches[0])
    complete.loss(batches[1], uncut_state)[0].backward()
    assert np.abs(dict(complete.named_parameters())[name].grad - found).max() > 1e-6


def test_an_epoch_begins_with_a_new_state():
    trained, seen = make(), []
    original = trained.loss

    def loss(batch, state=None):
        seen.append(state is None)
        return original(batch, state)

    trained.loss = loss
    trainer, _ = run(trained, max_steps=None, epochs=2, window=20)
    assert len(trainer.batches) == 4
    assert seen == [True, False, False, False] * 2
    assert trainer.progress.tokens == 2 * trainer.batches.tokens


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_evaluation_counts_every_token_once(batch_size):
    model = make(dropout=0.5)
    counted = []
    result = evaluate(model, cover(IDS, batch_size, 13, start_id=0), counted.append)
    assert result.tokens == sum(counted) == len(IDS)
    assert model.training
    assert result.perplexity == math.exp(result.loss)
    assert result.bits_per_token == result.loss / math.log(2)
    # By hand, each stream in one pass from a new state.
    model.eval()
    inputs = np.concatenate([[0], IDS])
    total, begin = 0.0, 0
    sizes = [len(part) for part in np.array_split(IDS, batch_size)]
    for size in sizes:
        logits, _ = model(inputs[begin : begin + size, None])
        loss = ops.cross_entropy(logits, IDS[begin : begin + size, None])
        total, begin = total + loss.item() * size, begin + size
    np.testing.assert_allclose(result.loss, total / len(IDS), rtol=1e-6)


def test_an_evaluation_never_has_all_logits(monkeypatch):
    monkeypatch.setattr(engine, "cross_entropy_forward", lambda *_, **__: pytest.fail("all logits"))
    assert evaluate(make(), cover(IDS, 2, 7)).tokens == len(IDS) - 1


def test_a_trainer_can_evaluate_before_it_runs():
    model, record = make(), Record()
    options = TrainingOptions(max_steps=1)
    validation = cover(IDS[:20], 1, 10)
    batches = batchify(IDS, 3, 4)
    trainer = Trainer(
        model, SGD(model.parameters(), 0.5), batches, options, validation=validation,
        callbacks=[record],
    )  # fmt: skip
    trainer.evaluate()
    assert record.of("evaluation", "loss") == [evaluate(model, validation).loss]


def test_evaluation_of_nothing():
    with pytest.raises(ValueError, match="no tokens to predict"):
        evaluate(make(), [])


def test_clipping_bounds_the_update_and_the_norm_is_recorded():
    model, record = make(), Record()
    before = arrays(model)
    run(model, record, max_steps=1, clip_norm=0.01, learning_rate=1.0)
    moved = math.sqrt(sum(((a - before[n]) ** 2).sum() for n, a in arrays(model).items()))
    np.testing.assert_allclose(moved, 0.01, rtol=1e-3)
    assert record.of("train", "gradient_norm")[0] > 0.05

    model = make()
    run(model, max_steps=1, clip_norm=0, clip_value=0.001, learning_rate=1.0)
    moves = [np.abs(a - before[n]).max() for n, a in arrays(model).items()]
    np.testing.assert_allclose(max(moves), 0.001, rtol=1e-3)


def test_records_have_the_documented_keys_and_the_mean_since_the_last():
    record = Record()
    validation = cover(IDS[:50], 1, 10)
    run(make(), record, log_every=4, validation=validation, evaluate_every=5, max_steps=10)
    assert record.of("train", "step") == [4, 8]
    assert record.of("evaluation", "step") == [5, 10]
    common = {"kind", "step", "epoch", "loss", "perplexity", "bits_per_token", "tokens", "seconds"}
    for entry in record.records:
        more = {"train": {"learning_rate", "gradient_norm"}, "evaluation": {"best"}}
        assert set(entry) == common | more[entry["kind"]]
        assert entry["perplexity"] == math.exp(entry["loss"])
        assert entry["bits_per_token"] == entry["loss"] / math.log(2)
    assert record.of("train", "tokens") == [4 * 12] * 2
    np.testing.assert_allclose(record.of("train", "loss")[1], np.mean(record.losses[4:8]))
    np.testing.assert_allclose(record.of("train", "epoch")[0], 4 / 17)
    assert record.of("evaluation", "tokens") == [49, 49]


def regression(targets, per_batch=4):
    rng = np.random.default_rng(3)
    series = [rng.normal(size=(5, 2)).astype(np.float32) for _ in targets]
    return SequenceBatches(series, np.asarray(targets, np.float32)[:, None], per_batch)


def test_what_is_reported_of_a_regressor_is_its_error():
    random.seed(6)
    model, record = SequenceRegressor(num_outputs=1, hidden_size=3, input_size=2), Record()
    batches = regression(np.linspace(-3, 3, 12))
    errors = []
    for batch in batches:
        errors.extend((model(batch.inputs).data - batch.targets).ravel() ** 2)
    result = evaluate(model, batches)
    np.testing.assert_allclose(result.mean_squared_error, np.mean(errors), rtol=1e-5)
    assert result.root_mean_squared_error == math.sqrt(result.loss)
    assert (result.perplexity, result.bits_per_token, result.accuracy) == (None, None, None)

    options = TrainingOptions(max_steps=3, log_every=3)
    optimizer = SGD(model.parameters(), 0.01)
    Trainer(model, optimizer, batches, options, validation=batches, callbacks=[record]).run()
    common = {
        "kind", "step", "epoch", "loss", "mean_squared_error", "root_mean_squared_error", "tokens",
        "seconds",
    }  # fmt: skip
    trained, evaluated = record.records[-2:]
    assert set(trained) == common | {"learning_rate", "gradient_norm"}
    assert set(evaluated) == common | {"best"}
    for entry in record.records:
        assert entry["mean_squared_error"] == entry["loss"]
        assert entry["root_mean_squared_error"] == math.sqrt(entry["loss"])


def test_what_is_reported_of_a_classifier_is_its_accuracy():
    model, record = SequenceClassifier(num_classes=2, hidden_size=3, input_size=2), Record()
    batches = SequenceBatches([np.ones((3, 2), "f"), np.zeros((4, 2), "f")] * 3, [0, 1] * 3, 2)
    options = TrainingOptions(max_steps=2, log_every=2)
    optimizer = SGD(model.parameters(), 0.01)
    Trainer(model, optimizer, batches, options, validation=batches, callbacks=[record]).run()
    trained, evaluated = record.records[-2:]
    common = {"kind", "step", "epoch", "loss", "tokens", "seconds"}
    assert set(trained) == common | {"learning_rate", "gradient_norm"}
    assert set(evaluated) == common | {"best", "accuracy"}
    assert evaluate(model, batches).perplexity is None


def test_a_model_that_does_not_say_what_its_loss_is_has_the_loss_alone():
    _, _, record = run_with_losses([3.0, 2.0])
    for entry in record.records:
        assert set(entry) == {"kind", "step", "epoch", "loss", "tokens", "seconds", "best"}
    model = make()
    model.loss_kind = "nats"
    message = "the loss_kind 'nats' of the model is not one of None, 'tokens', 'classes', 'likelih"
    with pytest.raises(ValueError, match=message):
        run(model)


@pytest.mark.parametrize(("name", "place"), [("inputs", "2, 1, 0"), ("targets", "1, 0")])
def test_data_that_are_not_finite_are_blamed_and_not_the_learning_rate(name, place):
    good = regression([1.0, 2.0])[0]
    array = np.array(getattr(good, name))
    array[tuple(map(int, place.split(", ")))] = np.nan
    batch = dataclasses.replace(good, **{name: array})
    model = SequenceRegressor(num_outputs=1, hidden_size=3, input_size=2)
    batches = SampledBatches(lambda generator: batch, 1)
    trainer = Trainer(model, SGD(model.parameters(), 0.01), batches, TrainingOptions(max_steps=3))
    cause = rf"because the {name} of its batch contain NaN or infinity \(at \[{place}\]\)"
    with pytest.raises(
        TrainingDiverged, match=rf"the loss became nan at step 1 .*, {cause}; fix the data"
    ):
        trainer.run()


class Validation:
    """A model of which the validation losses are given beforehand."""

    def __init__(self, losses):
        self.model, self.losses = make(), iter(losses)
        self.named_parameters, self.train = self.model.named_parameters, self.model.train
        self.load_state_dict = self.model.load_state_dict

    @property
    def training(self):
        return self.model.training

    def loss(self, batch, state=None):
        if self.training:
            return self.model.loss(batch, state)
        return Tensor(np.float64(next(self.losses))), None


def run_with_losses(losses, save=None, **options):
    record = Record()
    model = Validation(losses)
    given = {"max_steps": len(losses), "evaluate_every": 1, **options}
    options = TrainingOptions(batch_size=3, learning_rate=0.1, **given)
    optimizer = SGD(model.named_parameters(), options.learning_rate)
    validation = cover(IDS[:9], 1, 10)
    trainer = Trainer(
        model, optimizer, batchify(IDS, 3, 4), options, validation=validation,
        save_model=save or (lambda entry: None), callbacks=[record],
    )  # fmt: skip
    return trainer, trainer.run(), record


def test_the_best_model_is_kept():
    saved = []
    trainer, _, record = run_with_losses([3.0, 2.0, 2.5, 2.0, 1.9, 4.0], saved.append)
    assert [entry["step"] for entry in saved] == [1, 2, 5]
    assert record.of("evaluation", "best") == [True, True, False, False, True, False]
    assert trainer.progress.best_loss == 1.9


def test_patience_ends_the_training():
    trainer, reason, _ = run_with_losses([3.0, 2.0, 2.5, 2.0, 1.9, 4.0], patience=2)
    assert reason == "2 evaluations without improvement"
    assert trainer.progress.step == 4


def test_a_validation_loss_that_is_nan_ends_the_training():
    saved = []
    with pytest.raises(TrainingDiverged, match="the validation loss became nan at step 2 "):
        run_with_losses([3.0, math.nan, 1.0], saved.append)
    assert [entry["step"] for entry in saved] == [1]


def test_limits():
    trainer, reason = run(make(), max_steps=None, epochs=1)
    assert reason == "1 epoch done"
    assert (trainer.progress.epoch, trainer.progress.position) == (1, 0)
    trainer, reason = run(make(), max_steps=3, epochs=1)
    assert reason == "3 steps done"
    trainer, reason = run(make(), max_steps=None, minutes=1e-9)
    assert reason == "1e-09 minutes are over"
    assert trainer.progress.step == 0 or trainer.progress.step == 1


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_steps": 1}, [1]),
        ({"max_steps": 3}, [2, 3]),
        ({"max_steps": 8}, [4, 8]),
        ({"max_steps": 17}, [9, 17]),  # an epoch
        ({"max_steps": 18}, [17, 18]),
        ({"max_steps": 8, "evaluate_every": 8}, [4, 8]),
        ({"max_steps": 8, "evaluate_every": 7}, [7, 8]),
        ({"max_steps": 8, "evaluate_every": 100}, [4, 8]),
        ({"max_steps": None, "epochs": 1}, [9, 17]),
        ({"max_steps": None, "epochs": 2, "evaluate_every": 20}, [20, 34]),
    ],
)
def test_there_is_an_evaluation_before_the_end_and_one_at_it(options, steps):
    record = Record()
    run(make(), record, validation=cover(IDS[:20], 1, 10), **options)
    assert record.of("evaluation", "step") == steps


def test_a_request_to_stop_ends_after_the_update():
    class Stop(Callback):
        def on_step(self, trainer, loss):
            if trainer.progress.step == 2:
                trainer.request_stop("enough")

    stop = Stop()
    stop.on_record = lambda trainer, record: None
    trainer, reason = run(make(), stop, validation=cover(IDS[:20], 1, 10), evaluate_every=2)
    assert reason == "enough"
    assert trainer.progress.step == 2
    assert trainer.progress.evaluated_step == 0  # left for a training that continues


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_names_the_step_and_changes_nothing_on_disk(tmp_path, bad):
    model = make()
    directory = ModelDirectory.create(tmp_path / "model")
    original, steps = model.loss, []

    def loss(batch, state=None):
        value, state = original(batch, state)
        steps.append(1)
        return (value * bad if len(steps) == 4 else value), state

    model.loss = loss
    options = TrainingOptions(max_steps=10, batch_size=3, learning_rate=0.25, clip_norm=2.0)
    optimizer = SGD(model.named_parameters(), 0.25)
    trainer = Trainer(model, optimizer, batchify(IDS, 3, 4), options, directory=directory)
    trainer.save_checkpoint()
    before = directory.checkpoint.read_bytes()
    with pytest.raises(TrainingDiverged) as error:
        trainer.run()
    message = str(error.value)
    assert f"the loss became {bad} at step 4 (epoch 1)" in message
    assert f"the model and the checkpoint in {directory.path} are from before" in message
    assert "a learning_rate lower than 0.25, a clip_norm lower than 2, or a warm_up" in message
    assert directory.checkpoint.read_bytes() == before
    assert all(np.isfinite(array).all() for array in arrays(model).values())


def test_a_gradient_that_is_nan_ends_the_training():
    model = make()
    original = model.loss

    def loss(batch, state=None):
        value, state = original(batch, state)
        return (value - value.item()) * 1e38 * 1e38, state  # 0, infinitely steep

    model.loss = loss
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingDiverged, match=r"gradient norm became (nan|inf) at step 1 "),
    ):
        run(model, clip_norm=0)


def test_options_are_json():
    options = TrainingOptions(epochs=2, clip_norm=0.25)
    assert TrainingOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give a limit: epochs, max_steps or minutes"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, not 0"),
        ({"epochs": 1.5}, "epochs must be an integer of at least 1, not 1.5"),
        ({"minutes": 0.0}, "minutes must be more than 0"),
        ({"minutes": math.nan}, "minutes must be more than 0 and finite, not nan"),
        ({"epochs": 1, "learning_rate": math.inf}, "learning_rate .* finite, not inf"),
        ({"epochs": 1, "clip_norm": -1.0}, "clip_norm must be finite and >= 0"),
        ({"epochs": 1, "momentum": 0.9}, "momentum is for sgd and rmsprop, not for adam"),
        (
            {"epochs": 1, "optimizer": "sgd", "lazy_rows": True},
            "lazy_rows is for adam and adamw, not for sgd",
        ),
        ({"minutes": 1.0, "schedule": "cosine"}, "cosine ends at a known step"),
        ({"epochs": 1, "schedule": "nonmonotonic"}, "needs the optimizer asgd, not adam"),
        ({"epochs": 1, "optimizer": "adma"}, "optimizer 'adma' is not one of sgd, adam"),
        ({"epochs": 1, "seed": -1}, "seed must be an integer of at least 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        TrainingOptions(**options)


def test_unknown_options_are_named():
    with pytest.raises(ValueError, match="unknown options epoch; expected "):
        TrainingOptions.from_dict({"epoch": 1})


# Buffers


class Normalized(nn.Module):
    """A regressor with batch normalization, whose running statistics are buffers."""

    def __init__(self):
        self.norm = nn.BatchNorm1d(3)
        self.output = nn.Linear(3, 1)

    def loss(self, batch, state=None):
        x, y = batch
        return ((self.output(self.norm(x)) - y) ** 2).mean()

    def count_targets(self, batch):
        return len(batch[1])


def test_buffers_are_part_of_a_checkpoint(tmp_path):
    rng = np.random.default_rng(1)
    batches = [
        (rng.normal(2, 3, (8, 3)).astype("f"), rng.normal(size=(8, 1)).astype("f"))
        for _ in range(4)
    ]

    def trainer(directory, steps):
        random.seed(5)
        model = Normalized()
        optimizer = SGD(model.named_parameters(), 0.1)
        options = TrainingOptions(max_steps=steps, epochs=None, schedule="constant")
        return Trainer(model, optimizer, batches, options, directory=directory)

    complete = trainer(None, 7)
    complete.run(progress=False)
    directory = ModelDirectory.create(tmp_path / "model")
    first = trainer(directory, 3)
    first.run(progress=False)
    first.save_checkpoint()
    second = trainer(directory, 7)
    second.load_checkpoint()
    for name, buffer in second.model.named_buffers():
        np.testing.assert_array_equal(buffer.data, dict(first.model.named_buffers())[name].data)
    second.run(progress=False)
    assert second.model.norm.num_batches_tracked.item() == 7
    for name, values in complete.model.state_dict().items():
        np.testing.assert_array_equal(second.model.state_dict()[name], values)
