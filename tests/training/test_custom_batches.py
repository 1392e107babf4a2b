"""Training a module of one's own on batches of one's own: all that is needed is a loss."""

import numpy as np
import pytest

from anaphora import nn, ops, random
from anaphora.artifact import ModelDirectory
from anaphora.optim import SGD, Adam
from anaphora.tensor import Tensor
from anaphora.training import (
    Callback,
    Trainer,
    TrainingDiverged,
    TrainingOptions,
    evaluate,
)


class Sum(nn.Module):
    """Learns to add the numbers of a sequence; a batch is a pair of arrays [T, B, 1] and [B, 1]."""

    def __init__(self):
        self.recurrent = nn.GRU(1, 6)
        self.output = nn.Linear(6, 1)

    def loss(self, batch, state=None):
        inputs, targets = batch
        _, state = self.recurrent(Tensor(inputs))
        return ops.mean_squared_error(self.output(state[-1]), targets)


def pairs(count, size=8, seed=0):
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=(5, size, 1)).astype(np.float32) for _ in range(count)]
    return [(x, x.sum(axis=0)) for x in inputs]


def train(batches, *, directory=None, stop=None, **more):
    random.seed(3)
    model = Sum()
    options = TrainingOptions(**{"epochs": 12, "learning_rate": 0.02, "log_every": 1, **more})
    record = Record(stop)
    trainer = Trainer(
        model, Adam(model.parameters(), 0.02), batches, options, validation=pairs(3, seed=1),
        callbacks=[record], directory=directory,
    )  # fmt: skip
    return trainer, record


class Record(Callback):
    def __init__(self, stop=None):
        self.losses, self.records, self.stop = [], [], stop

    def on_step(self, trainer, loss):
        self.losses.append(loss)
        if trainer.progress.step == self.stop:
            trainer.request_stop("stopped")

    def on_record(self, trainer, record):
        self.records.append(record)


def bits(trainer):
    return {name: p.data.tobytes() for name, p in trainer.model.named_parameters()}


class Loader:
    """As a loader of another library: a length and an iterator, no index."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


def test_a_list_of_tuples_trains():
    trainer, record = train(pairs(10))
    before = evaluate(trainer.model, pairs(3, seed=1)).loss
    assert trainer.run() == "12 epochs done"
    after = evaluate(trainer.model, pairs(3, seed=1))
    assert after.loss < before / 10
    assert (after.tokens, after.accuracy, after.figures) == (3, None, {})
    assert trainer.progress.tokens == trainer.progress.step == 120
    keys = {"kind", "step", "epoch", "loss", "tokens", "seconds", "learning_rate", "gradient_norm"}
    assert set(record.records[0]) == keys
    assert [r["tokens"] for r in record.records if r["kind"] == "evaluation"] == [3] * 12


@pytest.mark.parametrize("kind", [tuple, Loader], ids=["tuple", "loader"])
def test_any_container_with_a_length_gives_the_same_bits(kind):
    trainer, record = train(pairs(10))
    trainer.run()
    other, other_record = train(kind(pairs(10)))
    other.run()
    assert bits(other) == bits(trainer)
    assert other_record.losses == record.losses


@pytest.mark.parametrize("kind", [list, Loader])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_it_goes_on_bit_for_bit(tmp_path, kind, accumulate):
    complete, _ = train(kind(pairs(10)), accumulate=accumulate)
    complete.run()
    directory = ModelDirectory.create(tmp_path / "model")
    for stop in (3, 7, None):
        part, _ = train(kind(pairs(10)), accumulate=accumulate, directory=directory, stop=stop)
        if stop != 3:
            part.load_checkpoint()
        assert part.run() == ("12 epochs done" if stop is None else "stopped")
    assert bits(part) == bits(complete)
    assert part.progress.step == complete.progress.step == 12 * (10 if accumulate == 1 else 4)


def test_a_state_is_carried_from_batch_to_batch():
    """The sum continues over the windows of a stream; without the state it cannot be known."""

    class Running(Sum):
        def loss(self, batch, state=None):
            inputs, targets = batch
            seen.append(state is not None)
            y, state = self.recurrent(Tensor(inputs), state)
            return ops.mean_squared_error(self.output(y), targets), state

    rng = np.random.default_rng(5)
    stream = rng.normal(size=(12, 4, 1)).astype(np.float32)
    batches = [(x, x) for x in np.split(stream, 4)]
    model, seen = Running(), []
    Trainer(model, SGD(model.parameters(), 0.1), batches, TrainingOptions(epochs=2)).run()
    assert seen == [False, True, True, True] * 2
    seen.clear()
    found = evaluate(model, batches).loss
    assert seen == [False, True, True, True]
    y, _ = model.recurrent(Tensor(stream))
    expected = ((model.output(y).data - stream) ** 2).mean()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [tuple, list, lambda states: states[0]])
def test_states_in_a_tuple_or_a_list_go_on_from_a_checkpoint(tmp_path, kind):
    class Carrying(Sum):
        def loss(self, batch, state=None):
            inputs, targets = batch
            h = state[0] if isinstance(state, (tuple, list)) else state
            _, h = self.recurrent(Tensor(inputs), h)
            loss = ops.mean_squared_error(self.output(h[-1]), targets)
            return loss, kind([h, 2 * h])

    def trainer(directory, **options):
        random.seed(5)
        model = Carrying()
        options = TrainingOptions(log_every=1, **options)
        return Trainer(
            model, SGD(model.parameters(), 0.05), pairs(4), options, directory=directory,
        )  # fmt: skip

    whole = trainer(None, max_steps=7)
    whole.run()
    directory = ModelDirectory.create(tmp_path / "run")
    trainer(directory, max_steps=3).run()
    part = trainer(directory, max_steps=7)
    part.load_checkpoint()
    part.run()
    for name, parameter in whole.model.named_parameters():
        np.testing.assert_array_equal(
            dict(part.model.named_parameters())[name].data, parameter.data
        )


def test_a_model_may_count_its_targets():
    class Counting(Sum):
        def count_targets(self, batch):
            return len(batch[1])

    model = Counting()
    batches = [*pairs(2, size=3), *pairs(1, size=7, seed=4)]
    losses = [model.loss(batch).item() for batch in batches]
    result = evaluate(model, batches)
    assert result.tokens == 3 + 3 + 7
    np.testing.assert_allclose(result.loss, np.average(losses, weights=[3, 3, 7]), rtol=1e-6)
    plain = Sum()
    plain.load_state_dict(model.state_dict())
    np.testing.assert_allclose(evaluate(plain, batches).loss, np.mean(losses), rtol=1e-6)


def test_batches_that_are_none_are_reported():
    model = Sum()
    optimizer, options = SGD(model.parameters(), 0.1), TrainingOptions(max_steps=1)
    cases = [
        (iter(pairs(2)), TypeError, r"batches is of type list_iterator; give .*; list\(batches\)"),
        ({"a": 1}, TypeError, "batches is of type dict; give a list of batches"),
        (3, TypeError, "batches is of type int; give a list of batches, or another object with"),
        ([], ValueError, "Trainer: batches is empty; give a list of batches"),
    ]
    for batches, kind, message in cases:
        with pytest.raises(kind, match=message):
            Trainer(model, optimizer, batches, options)
    with pytest.raises(ValueError, match="Trainer: validation is empty"):
        Trainer(model, optimizer, pairs(1), options, validation=[])

    class Short(Loader):
        def __len__(self):
            return 3

    with pytest.raises(ValueError, match="the batches ended after 2, but their length is 3; the"):
        Trainer(model, optimizer, Short(pairs(2)), TrainingOptions(epochs=1)).run()


def test_losses_that_are_none_are_reported():
    class Wrong(Sum):
        def loss(self, batch, state=None):
            return self.result(super().loss(batch))

    model = Wrong()
    cases = [
        (lambda loss: loss.item(), TypeError, r"Wrong.loss\(batch, state\) returned float; expec"),
        (lambda loss: ops.stack([loss, loss]), TypeError, r"returned of shape \(2,\); expected "),
        (lambda loss: Tensor(loss.data), ValueError, "the loss depends on no trainable param"),
    ]
    for model.result, kind, message in cases:
        trainer = Trainer(model, SGD(model.parameters(), 0.1), pairs(1), TrainingOptions(epochs=1))
        with pytest.raises(kind, match=message):
            trainer.run()
    options = TrainingOptions(epochs=1, loss_per="sequence")
    model = Sum()
    with pytest.raises(ValueError, match="loss_per 'sequence' needs batches with targets"):
        Trainer(model, SGD(model.parameters(), 0.1), pairs(1), options).run()


def test_arrays_that_are_not_finite_are_blamed():
    batches = pairs(2)
    batches[1][1][2, 0] = np.inf
    model = Sum()
    trainer = Trainer(model, SGD(model.parameters(), 0.1), batches, TrainingOptions(epochs=1))
    with pytest.raises(TrainingDiverged, match=r"because the arrays 1 of its .* \(at \[2, 0\]\)"):
        trainer.run()


def test_a_state_that_no_checkpoint_keeps_is_reported(tmp_path):
    class Dictionary(Sum):
        def loss(self, batch, state=None):
            return super().loss(batch), {"h": 1}

    model = Dictionary()
    trainer = Trainer(
        model, SGD(model.parameters(), 0.1), pairs(2), TrainingOptions(max_steps=1),
        directory=ModelDirectory.create(tmp_path / "model"),
    )  # fmt: skip
    with pytest.raises(
        TypeError, match=r"can only save a state that is a Tensor or .* one with a dict"
    ):
        trainer.run()


def test_frozen_parameters_stay_and_all_frozen_is_reported():
    trainer, _ = train(pairs(4))
    model = trainer.model
    model.recurrent.requires_grad_(False)
    before = model.state_dict()
    trainer.run()
    for name, array in model.state_dict().items():
        assert np.array_equal(array, before[name]) == name.startswith("recurrent"), name
    model.requires_grad_(False)
    trainer, _ = train(pairs(4))
    trainer.model.requires_grad_(False)
    with pytest.raises(
        ValueError, match="the loss depends on no trainable parameter: unfreeze some"
    ):
        trainer.run()


def test_the_text_of_a_trainer():
    trainer, _ = train(pairs(10), max_steps=40, accumulate=2)
    trainer.model.output.requires_grad_(False)
    count = sum(p.size for p in trainer.model.parameters())
    trainer.run()
    assert repr(trainer) == (
        "Trainer(\n"
        f"  model=Sum, {count} parameters (7 frozen)\n"
        f"  optimizer={trainer.optimizer!r}\n"
        "  batches=10 (2 per update), validation=3\n"
        "  limits: epochs=12, max_steps=40\n"
        "  done: 40 steps, 8 epochs, 100%, best loss "
        f"{trainer.progress.best_loss:.4g}\n)"
    )
