"""The sweep over learning rates: its turning point, its suggestion, and that it leaves no trace."""

import dataclasses
import json

import numpy as np
import pytest

from anaphora import nn, plot, random
from anaphora.data import batchify
from anaphora.models import LanguageModel
from anaphora.optim import SGD, Adam
from anaphora.tensor import Parameter
from anaphora.training import (
    Callback,
    LearningRateSweep,
    Trainer,
    TrainingOptions,
    find_learning_rate,
)

IDS = np.random.default_rng(4).integers(0, 7, 400)


class Bowl(nn.Module):
    """Its loss is curvature / 2 * w ** 2, of which SGD diverges above 2 / curvature."""

    def __init__(self, curvature):
        self.weight, self.curvature = Parameter(np.array([3.0, -4.0])), curvature

    def loss(self, batch, state=None):
        return (self.weight * self.weight).sum() * (self.curvature / 2)


@pytest.mark.parametrize("curvature", [0.02, 1.0, 50.0])
def test_it_ends_where_the_loss_diverges_and_suggests_a_rate_below(curvature):
    model = Bowl(curvature)
    options = TrainingOptions(epochs=1, clip_norm=0)
    trainer = Trainer(model, SGD(model.parameters(), 1.0), [None], options)
    sweep = find_learning_rate(trainer, smallest=1e-5, largest=1e4, steps=200)
    count = len(sweep.losses)
    assert count < 200
    edge = 2 / curvature
    assert edge < sweep.learning_rates[-1] < 20 * edge
    assert 0.05 * edge < sweep.suggestion < edge
    np.testing.assert_allclose(sweep.learning_rates[:3], 1e-5 * 10 ** (np.arange(3) * 9 / 199))
    weight, losses = np.array([3.0, -4.0]), []
    for rate in sweep.learning_rates:
        losses.append(curvature / 2 * (weight**2).sum())
        weight = weight - rate * curvature * weight
    np.testing.assert_allclose(sweep.losses, losses, rtol=1e-6)
    smoothed = [
        np.average(sweep.losses[: n + 1], weights=0.9 ** np.arange(n, -1, -1)) for n in range(count)
    ]
    np.testing.assert_allclose(sweep.smoothed, smoothed, rtol=1e-9)
    assert sweep.suggestion == sweep.learning_rates[np.argmin(sweep.smoothed)] / 10


class Losses(Callback):
    def __init__(self):
        self.losses = []

    def on_step(self, trainer, loss):
        self.losses.append(loss)


def make(**options):
    random.seed(6)
    model, watch = LanguageModel(7, hidden_size=5, dropout=0.3), Losses()
    options = TrainingOptions(**{"max_steps": 30, **options})
    optimizer = Adam(model.named_parameters(), 0.01)
    trainer = Trainer(model, optimizer, batchify(IDS, 4, 5), options, callbacks=[watch])
    return trainer, watch


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"ema_decay": 0.5}], ids=str)
def test_a_trainer_goes_on_as_if_nothing_had_been(options):
    results = []
    for sweeps in (False, True):
        trainer, watch = make(**options)
        trainer.options = dataclasses.replace(trainer.options, max_steps=7)
        trainer.run()
        trainer.options = dataclasses.replace(trainer.options, max_steps=30)
        if sweeps:
            before = trainer.progress, trainer.states, trainer.optimizer.groups
            sweep = find_learning_rate(trainer, steps=50)
            assert len(sweep.losses) > 10
            assert before == (trainer.progress, trainer.states, trainer.optimizer.groups)
            assert trainer.model.training
            assert all(p.grad is None for p in trainer.model.parameters())
        trainer.run()
        state = trainer.optimizer.state_dict()
        arrays = {name: array.tobytes() for name, array in state.pop("arrays").items()}
        weights = {name: p.data.tobytes() for name, p in trainer.model.named_parameters()}
        results.append((watch.losses, weights, arrays, state, json.dumps(random.get_state())))
    assert results[0] == results[1]


def test_all_is_restored_when_it_fails():
    model = Bowl(1.0)
    optimizer = SGD(model.parameters(), 0.25, momentum=0.5)
    model.eval()
    model.weight.grad = gradient = np.ones(2)
    before = model.state_dict()
    calls = []

    def loss(batch, state=None):
        calls.append(model.training)
        if len(calls) == 5:
            raise ZeroDivisionError
        return Bowl.loss(model, batch)

    model.loss = loss
    with pytest.raises(ZeroDivisionError):
        find_learning_rate(model, optimizer, [None])
    assert calls == [True] * 5
    np.testing.assert_array_equal(model.weight.data, before["weight"])
    assert model.weight.grad is gradient
    assert optimizer.learning_rate == 0.25
    assert optimizer.state_dict()["steps"] == {"0": 0}
    assert not model.training


def test_bad_arguments_are_reported():
    model = Bowl(1.0)
    optimizer = SGD(model.parameters(), 1.0)
    cases = [
        ({"smallest": 0}, "smallest is 0 and largest 10.0; expected finite"),
        ({"smallest": 2.0, "largest": 1.0}, "smallest is .*expected finite numbers, 0 < smallest"),
        ({"largest": np.inf}, "smallest is .*expected finite numbers, 0 < smallest"),
        ({"steps": 9}, "steps is 9; expected at least 10"),
        ({"smallest": 1e6, "largest": 1e7}, "the loss diverged after . updates, .* below 1e"),
    ]
    for given, message in cases:
        with pytest.raises(ValueError, match=f"find_learning_rate: {message}"):
            find_learning_rate(model, optimizer, [None], **given)
    with pytest.raises(TypeError, match="give a model with its optimizer and batches"):
        find_learning_rate(model, optimizer)
    with pytest.raises(TypeError, match="a trainer has its optimizer and batches; omit them"):
        find_learning_rate(make()[0], optimizer)


def test_the_picture_has_the_data_of_the_sweep():
    rates, losses = np.array([0.01, 0.1, 1.0]), np.array([3.0, 1.0, 200.0])
    smoothed = np.array([3.0, 2.0, 70.0])
    picture = plot.learning_rates(LearningRateSweep(rates, losses, smoothed, 0.01))
    assert picture.data == {
        "learning_rate": rates, "loss": losses, "smoothed_loss": smoothed, "suggestion": 0.01,
    }  # fmt: skip
    (axes,) = picture.figure.axes
    raw, mean, line = axes.get_lines()
    np.testing.assert_array_equal(raw.get_ydata(), losses)
    np.testing.assert_array_equal(mean.get_xydata(), np.stack([rates, smoothed], axis=1))
    assert line.get_xdata()[0] == 0.01
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[1] < 10
