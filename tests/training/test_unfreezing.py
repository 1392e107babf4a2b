"""Gradual unfreezing: which layers are trained in which epoch, also of one that continues."""

import numpy as np
import pytest

from anaphora import random
from anaphora.artifact import ModelDirectory
from anaphora.data import batchify
from anaphora.models import LanguageModel
from anaphora.optim import Adam, Cosine, WarmUp, discriminative_groups, freeze, layer_groups
from anaphora.training import Callback, GradualUnfreezing, Trainer, TrainingOptions

IDS = np.random.default_rng(4).integers(0, 7, 400)
LAYERS = ["embedding", "l0", "l1", "output"]
ALL = set(LAYERS)


def layer(name):
    return next(part for part in LAYERS if part in name)


class Watch(Callback):
    """Which layers have changed since the update before, by epoch; stops at a step."""

    def __init__(self, model, stop=None):
        self.model, self.stop = model, stop
        self.before = model.state_dict()
        self.changed = {}

    def on_step(self, trainer, loss):
        epoch = (trainer.progress.step - 1) // trainer.epoch_steps
        after = self.model.state_dict()
        moved = {
            layer(name) for name in after if not np.array_equal(after[name], self.before[name])
        }
        self.changed.setdefault(epoch, set()).update(moved)
        self.before = after
        if trainer.progress.step == self.stop:
            trainer.request_stop("stopped")


def make(directory=None, stop=None, groups=None, frozen=(), **options):
    random.seed(6)
    model = LanguageModel(7, hidden_size=5, num_layers=2, dropout=0.2)
    if frozen:
        freeze(model.named_parameters(), frozen)
    unfreezing = GradualUnfreezing(model.named_parameters(), groups)
    rates = discriminative_groups(
        model.named_parameters(), layer_groups(model.named_parameters()), 0.02
    )
    optimizer = Adam(rates, 0.02)
    watch = Watch(model, stop)
    trainer = Trainer(
        model, optimizer, batchify(IDS, 4, 10), TrainingOptions(**{"epochs": 6, **options}),
        schedule=WarmUp(Cosine(optimizer, total_steps=60), steps=5), callbacks=[unfreezing, watch],
        directory=directory,
    )  # fmt: skip
    return trainer, watch


def test_one_layer_more_is_trained_from_epoch_to_epoch():
    trainer, watch = make()
    trainer.run()
    assert trainer.epoch_steps == 10
    assert [watch.changed[epoch] for epoch in range(6)] == [
        {"output"}, {"output", "l1"}, {"output", "l1", "l0"}, ALL, ALL, ALL,
    ]  # fmt: skip


def test_groups_of_ones_own_and_parameters_that_stay_frozen():
    trainer, watch = make(groups=[["embedding.*", "*_l0"], ["*_l1"]], frozen=["*_hh_*"])
    trainer.run()
    assert [watch.changed[epoch] for epoch in range(6)] == [{"l1", "output"}, *[ALL] * 5]
    frozen = [name for name, p in trainer.model.named_parameters() if not p.requires_grad]
    assert frozen == [name for name, _ in trainer.model.named_parameters() if "_hh_" in name]


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.9}], ids=str)
def test_it_goes_on_bit_for_bit(tmp_path, options):
    complete, _ = make(**options)
    complete.run()
    directory = ModelDirectory.create(tmp_path / "model")
    for stop in (1, 9, 10, 11, 25, 30, 45, None):
        part, _ = make(directory, stop, **options)
        if stop != 1:
            part.load_checkpoint()
        part.run()
        random.seed(9)
    for trainer in (complete, part):
        with trainer.optimizer.averaged():
            arrays = {name: p.data.tobytes() for name, p in trainer.model.named_parameters()}
        state = trainer.optimizer.state_dict()
        moments = {name: array.tobytes() for name, array in state.pop("arrays").items()}
        if trainer is complete:
            expected = arrays, moments, state
    assert (arrays, moments, state) == expected
    assert part.progress.step == 60


def test_bad_groups_are_reported():
    model = LanguageModel(7, hidden_size=5)
    with pytest.raises(ValueError, match=r"no parameter is named 'reader\.\*'; expected emb"):
        GradualUnfreezing(model.named_parameters(), [["reader.*"]])
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="GradualUnfreezing: all parameters are frozen"):
        GradualUnfreezing(model.named_parameters())
