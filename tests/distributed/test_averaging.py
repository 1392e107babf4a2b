"""Local SGD: processes that train apart and average, against the same by hand in one process."""

import json

import numpy as np
import pytest

from anaphora import nn, ops, random
from anaphora.data import SignalBatches
from anaphora.distributed import ALONE
from anaphora.optim import SGD
from anaphora.tensor import Parameter, Tensor, detach
from anaphora.training import Trainer, TrainingOptions
from anaphora.training.averaging import Averaging, check_apart


class Running(nn.Module):
    def __init__(self):
        self.recurrent = nn.GRU(2, 6)
        self.output = nn.Linear(6, 3)

    def loss(self, batch, state=None):
        y, state = self.recurrent(Tensor(batch.inputs), state)
        return ops.mean_squared_error(self.output(y), batch.targets), state


def streams():
    rng = np.random.default_rng(5)
    stream = rng.normal(size=(33, 5, 2)).astype(np.float32)  # of 5 rows: shards of 1, 1, 1 and 2
    return SignalBatches(stream, np.repeat(stream.cumsum(axis=0)[..., :1], 3, axis=-1), window=7)


def by_hand(every, epochs, momentum, rate):
    """4 models with a fourth of the rows each; after `every` updates, or an epoch, their mean."""
    models = []
    for _ in range(4):
        random.seed(3)
        models.append(Running())
    optimizers = [SGD(model.parameters(), 0.05, momentum=0.9) for model in models]
    common = [p.data.copy() for p in models[0].parameters()]
    velocity = [np.zeros_like(array) for array in common]
    step = 0
    for _ in range(epochs):
        states = [None] * 4
        batches = streams()
        for position, batch in enumerate(batches, start=1):
            step += 1
            for k, (model, optimizer) in enumerate(zip(models, optimizers, strict=True)):
                loss, state = model.loss(batch.shard(k, 4), states[k])
                states[k] = detach(state)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            if step % every and position < len(batches):
                continue
            a, b, c, d = ([p.data for p in model.parameters()] for model in models)
            means = [
                ((w + x) + (y + z)) / np.float32(4) for w, x, y, z in zip(a, b, c, d, strict=True)
            ]
            for n, mean in enumerate(means):
                difference = common[n] - mean
                velocity[n] = np.float32(momentum) * velocity[n] + difference
                if (momentum, rate) != (0, 1):
                    outer = difference + np.float32(momentum) * velocity[n]
                    mean = common[n] - np.float32(rate) * outer
                common[n] = mean
                for model in models:
                    with list(model.parameters())[n].writing() as array:
                        array[...] = mean
            states_of = [optimizer.state_dict() for optimizer in optimizers]
            for name in states_of[0]["arrays"]:
                w, x, y, z = (one["arrays"][name] for one in states_of)
                for one in states_of:
                    one["arrays"][name] = ((w + x) + (y + z)) / np.float32(4)
            for optimizer, one in zip(optimizers, states_of, strict=True):
                optimizer.load_state_dict(one)
    return [array.tobytes().hex() for array in common]


PROGRAM = """
import importlib.util, json, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("averaging", sys.argv[1])
test = importlib.util.module_from_spec(spec)
spec.loader.exec_module(test)
from anaphora import random
from anaphora.artifact import ModelDirectory
from anaphora.distributed import world
from anaphora.optim import SGD
from anaphora.training import Callback, Trainer, TrainingDiverged, TrainingOptions

class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_step(self, trainer, loss):
        if trainer.progress.step == self.step and trainer.processes.rank == 2:
            trainer.request_stop("stopped")

def trainer(batches, momentum, rate, directory=None, stop=None, **more):
    random.seed(3)
    model = test.Running()
    options = TrainingOptions(**{
        "epochs": 3, "average_every": 3, "outer_momentum": momentum, "outer_learning_rate": rate,
        "clip_norm": 0.0, "log_every": 2, **more,
    })
    return Trainer(
        model, SGD(model.parameters(), 0.05, momentum=0.9), batches, options,
        directory=directory, callbacks=[Stop(stop)],
    )

def weights(trainer):
    return [p.data.tobytes().hex() for p in trainer.model.parameters()]

results = {}
for momentum, rate in ((0.0, 1.0), (0.9, 0.7)):
    complete = trainer(test.streams(), momentum, rate)
    complete.run()
    results[str((momentum, rate))] = weights(complete)
    assert world().all_gather(weights(complete)) == [weights(complete)] * 4
    tokens = complete.progress.tokens
    assert tokens == 3 * sum(batch.tokens for batch in test.streams()), tokens

    # Stopped in between: it ends when all are together, and goes on with the same bits.
    path = Path(sys.argv[2], str(momentum))
    if world().is_main:
        ModelDirectory.create(path)
    world().barrier()
    first = trainer(test.streams(), momentum, rate, ModelDirectory(path), stop=4)
    assert first.run() == "stopped"
    assert first.progress.step == 5, first.progress.step  # the end of the epoch
    second = trainer(test.streams(), momentum, rate, ModelDirectory(path), stop=7)
    second.load_checkpoint()
    assert second.run() == "stopped"
    assert second.progress.step == 9
    last = trainer(test.streams(), momentum, rate, ModelDirectory(path))
    last.load_checkpoint()
    last.run()
    assert weights(last) == weights(complete)

# An error waits for the others.
broken = test.streams()
if world().rank == 3:
    broken._inputs[9, -1] = float("nan")  # in the second batch
one = trainer(broken, 0.0, 1.0)
one._check_alike = lambda: None
try:
    one.run()
except TrainingDiverged as error:
    results[f"diverged {world().rank}"] = str(error)
told = world().gather(results)
if world().is_main:
    print(json.dumps([told[0], [one[f"diverged {k}"] for k, one in enumerate(told)]]))
"""


def test_it_is_what_is_done_by_hand(launch, script, tmp_path):
    out, _ = launch(4, [script(PROGRAM), __file__, tmp_path])
    found, errors = json.loads(out)
    plain, outer = by_hand(3, 3, 0.0, 1.0), by_hand(3, 3, 0.9, 0.7)
    assert plain != outer
    assert found["(0.0, 1.0)"] == plain
    assert found["(0.9, 0.7)"] == outer
    for error in errors:
        assert error.startswith("rank 3 on ")
        assert "the loss became nan at step 2" in error


def test_what_is_refused():
    for shards, processes, end in (
        (4, 2, "each of the 4 shards"),
        (1, 1, "each of several shards"),
    ):
        with pytest.raises(
            ValueError, match=f"average_every 8 needs one process for {end}, because"
        ):
            check_apart(8, shards, processes)
    model = Running()
    options = TrainingOptions(epochs=1, average_every=2)
    trainer = Trainer(model, SGD(model.parameters(), 0.1), streams(), options)
    with pytest.raises(ValueError, match=r"average_every 2 needs one process .* there is 1"):
        trainer.run()
    for given, message in (
        ({"outer_momentum": 0.9}, "outer_momentum and outer_learning_rate are for averages"),
        ({"outer_learning_rate": 0.7}, "outer_momentum and outer_learning_rate are for averages"),
        (
            {"average_every": 4, "outer_learning_rate": 0.0},
            "outer_learning_rate must be more than 0",
        ),
        (
            {"average_every": 4, "evaluate_every": 6},
            "evaluate_every must be a multiple of average_",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            TrainingOptions(epochs=1, **given)


def test_one_process_keeps_its_weights():
    weight = Parameter(np.array([3.0, 5.0], np.float32))
    options = TrainingOptions(epochs=1, average_every=2)
    averaging = Averaging({"weight": weight}, SGD([weight], 0.1), options, ALONE, 0, {})
    averaging.count(2.5, 7)
    assert averaging.average(2) == (2.5, 7)
    assert averaging.average(4) == (0.0, 0)
    assert weight.data.tolist() == [3.0, 5.0]
    averaging.failure = KeyError("kept")
    with pytest.raises(KeyError, match="kept"):
        averaging.average(6)
