"""Each name of the table of foreign names as a call: ours runs, and beside PyTorch does the same.

The calls are in `foreign_calls.txt`. Without PyTorch only ours run.
"""

import inspect
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest

import anaphora
from anaphora import RowGradient, Tensor, nn, ops, optim, training
from anaphora.foreign_names import CALLS, NAMES

try:
    import torch
except ImportError:
    torch = None

TOLERANCE = {"float32": {"rtol": 1e-4, "atol": 1e-5}, "float64": {"rtol": 1e-7, "atol": 1e-7}}


def read_table():
    """By owner: the calls (name or None, theirs, ours), and names whose answers are words."""
    calls, words = {}, {}
    text = Path(__file__).with_name("foreign_calls.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if re.fullmatch(r"\[[\w.]+\]", line):
            owner = line.strip("[]")
            calls[owner], words[owner] = [], set()
        elif " => " in line:
            theirs, ours = line.split(" => ")
            named = re.match(r"([\w.]+): ", theirs)
            name = named and named[1]
            calls[owner].append((name, theirs[len(named[0]) if named else 0 :], ours))
        else:
            words[owner] |= set(line.split())
    return calls, words


TABLE, WORDS = read_table()
EACH = [call for calls in TABLE.values() for call in calls]
EACH += [(None, theirs, ours) for theirs, ours in CALLS.items()]


# Every name has a call


def names_in(name, theirs, owner):
    """The names that a call of theirs is a case of."""
    if name:
        return {name}
    return set(re.findall(r"\b(\w+)=" if owner == "arguments" else r"\w+", theirs))


@pytest.mark.parametrize("owner", NAMES)
def test_every_name_of_the_table_has_a_call(owner):
    names = {name for key in NAMES[owner] for name in key.split()}
    with_calls = {n for name, theirs, _ in TABLE[owner] for n in names_in(name, theirs, owner)}
    assert names - with_calls - WORDS[owner] == set(), "names without a line in foreign_calls.txt"
    assert WORDS[owner] - names == set(), "these are not in the table of names"
    assert WORDS[owner] & with_calls == set(), "these have calls"
    for name, _, _ in TABLE[owner]:
        assert name is None or name in names


@pytest.mark.parametrize("owner", NAMES)
def test_a_call_of_ours_is_what_the_answer_says(owner):
    advice = {name: text for key, text in NAMES[owner].items() for name in key.split()}
    for name, theirs, ours in TABLE[owner]:
        found = [n for n in names_in(name, theirs, owner) if n in advice]
        assert found, theirs
        said = [set(re.findall(r"\.(\w+)|(\w+)=", code_in(advice[n]))) for n in found]
        said = {word for pairs in said for pair in pairs for word in pair if word}
        used = set(re.findall(r"\w+", ours + source_of_helpers(ours)))
        assert not said or said & used, (theirs, ours)


def code_in(answer):
    """What stands in backquotes, in an answer that begins with it and means just that."""
    exact = answer.startswith("`") and "and so on" not in answer
    return " ".join(re.findall(r"`([^`]*)`", answer)) if exact else ""


def source_of_helpers(code):
    """The source of what the tests define and a call uses, such as `rates`."""
    used = (SHARED.get(word) for word in re.findall(r"\w+", code))
    return "".join(inspect.getsource(helper) for helper in used if inspect.isfunction(helper))


def test_a_name_without_a_call_is_found(monkeypatch):
    monkeypatch.setitem(NAMES, "Schedule", NAMES["Schedule"] | {"rewind": "`schedule.on_epoch(0)`"})
    with pytest.raises(AssertionError, match="names without a line"):
        test_every_name_of_the_table_has_a_call("Schedule")


# What the calls use


def arrays(dtype):
    """Arrays by name: those with gradients, and the others."""
    rng = np.random.default_rng(1)
    with_gradients = {
        "x": rng.normal(size=(3, 4, 5)),
        "y": rng.normal(size=(3, 4, 5)),
        "p": rng.uniform(0.1, 0.9, (3, 4, 5)),
        "m": rng.normal(size=(4, 4)),
        "n": rng.normal(size=(4, 5)),
        "v": rng.normal(size=5),
        "w": rng.normal(size=5),
        "u": rng.normal(size=4),
    }
    square = rng.normal(size=(4, 4))
    holes = np.where(rng.random((3, 4)) < 0.3, np.nan, rng.normal(size=(3, 4)))
    others = {
        "c": rng.normal(size=(3, 4, 5)), "d": rng.normal(size=(3, 4, 5)), "k": square,
        "positive": square @ square.T + np.eye(4), "holes": holes, "h": rng.normal(size=(4, 6)),
        "signs": rng.choice([-1.0, 1.0], (3, 4, 5)),
    }  # fmt: skip
    integers = {
        "ids": rng.integers(0, 4, (3, 2, 5)), "classes": rng.integers(0, 5, (3, 4)),
        "row": np.array([2, 0, 1]), "square": rng.integers(0, 4, (4, 4)),
        "mask": rng.random((3, 4, 5)) < 0.5,
    }  # fmt: skip
    with_gradients, others = (
        {name: array.astype(dtype) for name, array in group.items()}
        for group in (with_gradients, others)
    )
    return with_gradients, others, integers


def modules(nn):
    """Modules by name, made by either package."""
    return {
        "linear": nn.Linear(5, 2), "owner": nn.Linear(5, 2), "buffered": nn.Linear(5, 2),
        "model": nn.Sequential(nn.Linear(5, 4), nn.Tanh()), "norm": nn.BatchNorm1d(5),
        "lstm": nn.LSTM(5, 6), "gru": nn.GRU(5, 6), "rnn": nn.RNN(5, 6),
        "table": nn.Embedding(6, 5), "another_table": nn.Embedding(6, 5),
    }  # fmt: skip


class Own(optim.Schedule):
    """A schedule that multiplies the rate at first by a function of the epoch."""

    def __init__(self, optimizer, factor):
        super().__init__(optimizer)
        self.factor = factor

    def on_epoch(self, epoch):
        self._set(self.initial_learning_rate * self.factor(epoch))


LOSSES = [1.0, 0.9, 1.1, 1.2, 1.3, 0.5, 0.6, 0.7, 0.8, 0.9]


def rates(schedule, optimizer):
    """The learning rates of six epochs of one step."""
    found = []
    for epoch in range(6):
        if isinstance(schedule, optim.Schedule):
            schedule.on_epoch(epoch)
            schedule.on_step(epoch)
            found.append(optimizer.learning_rate)
        else:
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if epoch < 5:
                schedule.step()
    return found


def plateau_rates(schedule, optimizer):
    """The learning rates after some losses."""
    found = []
    for loss in LOSSES:
        if isinstance(schedule, optim.Schedule):
            schedule.on_evaluation(loss)
            found.append(optimizer.learning_rate)
        else:
            schedule.step(loss)
            found.append(optimizer.param_groups[0]["lr"])
    return found


def graded(module, x):
    """The parameters of a module, with gradients."""
    (module(x) * module(x)).sum().backward()
    return list(module.parameters())


def stepped(optimizer, module, x):
    """The weights after a step of an optimizer."""
    graded(module, x)
    optimizer.step()
    return module.weight.detach()


def loaded(module, layer):
    """A layer, or its cell, with the parameters of another layer."""
    module.to(layer.weight_ih_l0.dtype)
    ending = "_l0" if hasattr(module, "weight_ih") else ""
    module.load_state_dict({k.replace(ending, ""): v for k, v in layer.state_dict().items()})
    return module


def under(context, call):
    with context:
        return call()


SHARED = {
    "np": np, "math": math, "rates": rates, "plateau_rates": plateau_rates, "graded": graded,
    "stepped": stepped, "under": under, "lengths": [2, 3, 1, 3],
}  # fmt: skip


def ours_by_name(dtype):
    with_gradients, others, integers = arrays(dtype)
    anaphora.random.seed(1)
    made = {name: module.to(dtype) for name, module in modules(nn).items()}
    optimizer = optim.SGD(made["linear"].parameters(), 0.5)
    return (
        SHARED | integers | made
        | {name: Tensor(array, requires_grad=True) for name, array in with_gradients.items()}
        | {name: Tensor(array) for name, array in others.items()}
        | {
            "anaphora": anaphora, "nn": nn, "ops": ops, "optim": optim, "training": training,
            "Tensor": Tensor, "optimizer": optimizer,
            "own": lambda factor: Own(optimizer, factor),
            "loaded": loaded,
            "gradient": RowGradient(*row_gradient(dtype), (6, 5)),
        }
    )  # fmt: skip


def row_gradient(dtype):
    return np.array([1, 4]), np.random.default_rng(2).normal(size=(2, 5)).astype(dtype)


def theirs_by_name(dtype, ours):
    with_gradients, others, integers = arrays(dtype)
    made = modules(torch.nn)
    for name, module in made.items():
        module.to(getattr(torch, dtype))
        state = ours[name].state_dict()
        module.load_state_dict({key: torch.tensor(array) for key, array in state.items()})
    sparse = torch.nn.Embedding(6, 5, sparse=True, dtype=getattr(torch, dtype))
    sparse.load_state_dict(made["another_table"].state_dict())
    places, values = (torch.tensor(array) for array in row_gradient(dtype))
    return (
        SHARED | made
        | {k: torch.tensor(v, requires_grad=True) for k, v in with_gradients.items()}
        | {k: torch.tensor(v) for k, v in (others | integers).items()}
        | {
            "torch": torch, "nn": torch.nn, "F": torch.nn.functional, "optim": torch.optim,
            "lr_scheduler": torch.optim.lr_scheduler, "another_table": sparse,
            "optimizer": torch.optim.SGD(made["linear"].parameters(), 0.5),
            "rows": torch.sparse_coo_tensor(places[None], values, (6, 5), check_invariants=True),
            "lengths": torch.tensor(SHARED["lengths"]),
        }
    )  # fmt: skip


# The calls


def result_of(code, names):
    """The value of a call; of a statement, that of what it changed, which it begins with."""
    changed = re.match(r"with ([\w.]+)\.writing\(\)|([\w.]+) = ", code)
    if not changed:
        return eval(code, names)
    exec(code, names)
    return eval(changed[1] or changed[2], names)


def parts(value):
    """The arrays and numbers in a result."""
    if isinstance(value, (tuple, list, map)):
        return [part for item in value for part in parts(item)]
    return [value]


def plain(value):
    detached = value.detach() if hasattr(value, "detach") else value
    return np.asarray(detached)


def recorded(values):
    return [value for value in values if getattr(value, "requires_grad", False)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("call", EACH, ids=[call[1] for call in EACH])
def test_a_call_of_ours_does_what_theirs_does(call, dtype):
    _, theirs, ours = call
    names = ours_by_name(dtype)
    peers = None if torch is None else theirs_by_name(dtype, names)
    values = parts(result_of(ours, names))
    assert values
    if theirs.startswith("keras."):
        return  # tests/interop/test_keras.py has its layers
    if peers is None:
        pytest.skip("ours ran; theirs needs PyTorch (extra peers)")
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, of what is deprecated there
        expected = parts(result_of(theirs, peers))
    assert len(values) == len(expected)
    for value, other in zip(values, expected, strict=True):
        assert plain(value).shape == plain(other).shape
        np.testing.assert_allclose(
            plain(value).astype(float), plain(other).astype(float), **TOLERANCE[dtype]
        )
    check_gradients(recorded(values), recorded(expected), names, peers, dtype)


def check_gradients(values, expected, names, peers, dtype):
    """Those of inputs and parameters, for random gradients of the results."""
    assert len(values) == len(expected)
    rng = np.random.default_rng(3)
    for value, other in zip(values, expected, strict=True):
        dy = rng.normal(size=value.shape).astype(value.dtype)
        value.backward(dy, retain_graph=True)
        other.backward(torch.tensor(dy), retain_graph=True)
    inputs = arrays(dtype)[0]
    leaves = {name: (names[name], peers[name]) for name in inputs}
    for name, module in modules(nn).items():
        for key, _ in module.named_parameters():
            pair = [dict(by[name].named_parameters())[key] for by in (names, peers)]
            leaves[f"{name}.{key}"] = pair
    for name, (leaf, other) in leaves.items():
        one = np.zeros(leaf.shape) if leaf.grad is None else np.asarray(leaf.grad)
        two = np.zeros(leaf.shape) if other.grad is None else other.grad.to_dense().numpy()
        np.testing.assert_allclose(one, two, **TOLERANCE[dtype], err_msg=name)
