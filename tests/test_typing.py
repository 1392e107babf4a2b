"""What type checkers and editors see: a user's script has no Any where a Tensor is meant."""

import inspect
import re
from pathlib import Path

import pytest

import anaphora
from anaphora import nn, ops, optim

api = pytest.importorskip("mypy.api", reason="needs mypy (extra dev)")

SOURCES = Path(anaphora.__file__).parents[1]

SCRIPT = """
from __future__ import annotations
from collections.abc import Iterator
from typing import reveal_type
import numpy as np
import anaphora
from anaphora import Parameter, Tensor, data, detach, differentiable, models, nn, no_grad, ops, optim
from anaphora.tensor import Input

class Net(nn.Module):
    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.dropout = nn.Dropout(0.5)
        self.lstm = nn.LSTM(hidden, hidden, num_layers=2, batch_first=True)
        self.layers = nn.ModuleList([nn.Linear(hidden, hidden) for _ in range(2)])
        self.heads = nn.ModuleDict({"tags": nn.Linear(hidden, 3)})
        self.scale = nn.Parameter(anaphora.ones(hidden))
        self.net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 5))

    def forward(
        self, ids: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, state = self.lstm(self.dropout(self.embedding(ids)), state)
        for layer in self.layers:
            y = layer(y).relu() * self.scale
        return y, state

def build() -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(4, 4) for _ in range(3)])

def run(model: nn.Sequential, xs: Iterator[Tensor]) -> Iterator[Tensor]:
    yield from map(model, xs)

class Scaled(nn.LSTM):
    def once(self, x: Tensor) -> Tensor:
        y, (h, c) = self(x)
        return y + h + c

class Generic(nn.Module):
    def __init__(self, inner: nn.Recurrent) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]

@differentiable
def cube(x: Input, /, factor: float = 1.0) -> object:
    return factor * x**3, lambda dy: 3 * factor * x**2 * dy

def closure() -> Tensor:
    return loss

net = Net(10, 4)
generic = Generic(nn.GRU(3, 4))
x = anaphora.randn(2, 3, 4)
ids = anaphora.randint(0, 10, (2, 3))
loss = nn.CrossEntropyLoss()(x, ids)
optimizer = optim.Adam(net.parameters(), learning_rate=1e-3)
lstm, gru = nn.LSTM(4, 5), nn.GRU(4, 5)
"""  # noqa: E501 - as users write it

TENSOR = "Tensor"
PAIR = "tuple[Tensor, Tensor]"
FLOATS = "ndarray[tuple[Any, ...], dtype[Any]]"
BOOLEANS = "ndarray[tuple[Any, ...], dtype[bool[bool]]]"

EXPRESSIONS = {
    # Modules: a call returns what forward returns
    "net(ids)": "tuple[Tensor, tuple[Tensor, Tensor]]",
    "net(ids, None)[1]": PAIR,
    "generic(x)": TENSOR,
    "build()(x)": TENSOR,
    "net.net(x)": TENSOR,
    "net.layers[0](x)": TENSOR,
    "[layer(x) for layer in net.layers]": "list[Tensor]",
    "net.heads['tags'](x)": TENSOR,
    "net.lstm(x)": "tuple[Tensor, tuple[Tensor, Tensor]]",
    "net.lstm.weight_ih_l0": "Parameter",
    "net.embedding.weight": "Parameter",
    "net.eval()": "Net",
    "list(net.parameters())": "list[Parameter]",
    "dict(net.named_parameters())": "dict[str, Parameter]",
    "nn.Linear(4, 5)(x)": TENSOR,
    "nn.Linear(4, 5)([1.0, 2.0])": TENSOR,
    "nn.Embedding(10, 4)(ids)": TENSOR,
    "nn.Dropout(0.1)(x)": TENSOR,
    "nn.LayerNorm(4)(x)": TENSOR,
    "nn.BatchNorm1d(4)(x, lengths=[1, 2])": TENSOR,
    "nn.Conv1d(4, 5, 3)(x, lengths=ids)": TENSOR,
    "nn.MaxPool1d(2)(x)": TENSOR,
    "nn.Identity()(x)": TENSOR,
    "nn.Softmax(-1)(x)": TENSOR,
    "nn.PReLU()(x)": TENSOR,
    "nn.GLU(axis=1)(x)": TENSOR,
    "nn.CosineSimilarity()(x, x)": TENSOR,
    "nn.init.xavier_uniform_(net.scale)": "Parameter",
    "nn.init.zeros_(x)": TENSOR,
    "gru(x)": PAIR,
    "nn.RNN(4, 5)(x, lengths=np.array([2, 3]))": PAIR,
    "lstm(x)": "tuple[Tensor, tuple[Tensor, Tensor]]",
    "lstm(x, (x, x))[1][0]": TENSOR,
    "lstm(x, (np.zeros(3), np.zeros(3)))[0]": TENSOR,
    "gru(x, x)": PAIR,
    "lstm.record(x)[1]": PAIR,
    "nn.Recurrent('mgu', 4, 5)(x)[0]": TENSOR,
    "nn.LSTMCell(4, 5)(x)": PAIR,
    "nn.GRUCell(4, 5)(x, x)": TENSOR,
    "nn.RNNCell(4, 5)(x)": TENSOR,
    "nn.Sequential(nn.Linear(4, 5), nn.LSTM(5, 6))(x)[1]": PAIR,
    "nn.MultiheadAttention(4, 2)(x, x, x)": "tuple[Tensor, Tensor | None]",
    "nn.AdditiveAttention(4, 4, 4)(x, x)": PAIR,
    "nn.CRF(4)(x, ids)": TENSOR,
    "nn.CTCLoss()(x, ids, [3, 3], [1, 1])": TENSOR,
    "nn.MSELoss()(x, x)": TENSOR,
    "nn.BCEWithLogitsLoss()(x, x)": TENSOR,
    "nn.ParameterList([x])[0]": "Parameter",
    "list(run(build(), iter([x])))": "list[Tensor]",
    # Tensors
    "x + 1": TENSOR,
    "1 - x": TENSOR,
    "x * x": TENSOR,
    "2 / x": TENSOR,
    "x @ x.T": TENSOR,
    "x ** 2": TENSOR,
    "-x": TENSOR,
    "abs(x)": TENSOR,
    "x[:, -1]": TENSOR,
    "x[0, 0, 0]": TENSOR,
    "x[x > 0]": TENSOR,
    "[row for row in x]": "list[Tensor]",
    "x > 0": BOOLEANS,
    "x == x": BOOLEANS,
    "x.sum(axis=1, keepdims=True)": TENSOR,
    "x.mean()": TENSOR,
    "x.argmax(-1)": TENSOR,
    "x.topk(2).values": TENSOR,
    "x.max(axis=1)": TENSOR,
    "x.reshape(2, -1)": TENSOR,
    "x.transpose(1, 0, 2)": TENSOR,
    "x.detach()": TENSOR,
    "x.softmax(axis=-1)": TENSOR,
    "x.any()": BOOLEANS,
    "x.item()": "float",
    "x.shape": "tuple[int, ...]",
    "x.data": FLOATS,
    "net.scale.grad": f"{FLOATS} | RowGradient | None",
    "detach((x, x))": PAIR,
    "detach(x)": TENSOR,
    "anaphora.zeros(2, 3)": TENSOR,
    "anaphora.arange(3)": TENSOR,
    # Operations
    "ops.tanh(x)": TENSOR,
    "ops.tanh(np.ones(3))": TENSOR,
    "ops.concatenate([x, x], axis=1)": TENSOR,
    "ops.stack([x, x])": TENSOR,
    "ops.split(x, 2)": "tuple[Tensor, ...]",
    "ops.where(x > 0, x, 0.0)": TENSOR,
    "ops.cross_entropy(x, ids, ignore_index=0)": TENSOR,
    "ops.einsum('ij,jk->ik', x, x)": TENSOR,
    "ops.one_hot(ids, 10)": TENSOR,
    "ops.softmax(x, axis=-1)": TENSOR,
    "ops.gumbel_softmax(x, hard=True)": TENSOR,
    "cube(x, factor=2.0)": TENSOR,
    # Training
    "loss.backward()": "None",
    "loss.item()": "float",
    "optimizer.step()": "None",
    "optim.LBFGS(net.parameters()).step(closure)": TENSOR,
    "optim.clip_grad_norm(net.parameters(), 1.0)": "float",
    "optim.Cosine(optimizer, total_steps=10).learning_rate": "float",
    "[batch.inputs for batch in data.batchify(np.arange(20), 2, 3)]": f"list[{FLOATS}]",
    "models.LanguageModel(10)(ids)[0]": TENSOR,
}

WRONG = {
    "net('text')": "incompatible type",
    "net(ids, states=None)": 'Unexpected keyword argument "states"',
    "nn.Linear(4, 5)(x, 3)": "Too many arguments",
    "nn.LSTM(4, 5, layers=2)": 'Unexpected keyword argument "layers"',
    "nn.ReLU(3)": "Too many arguments",
    "x.unsqueeze(1)": 'has no attribute "unsqueeze"',
    "ops.softmax(x, dim=1)": 'Unexpected keyword argument "dim"',
    "nn.Conv2d": 'has no attribute "Conv2d"',
    "cube(x, power=2.0)": 'Unexpected keyword argument "power"',
    "optim.Adam(net.parameters(), lr=0.1)": 'Unexpected keyword argument "lr"',
}


# What returns something else than Tensors: arrays.
ARRAYS = {"all", "any", "balanced_class_weights", "crf_decode", "crf_marginals"}


def test_a_script_is_typed_as_its_author_means_it(tmp_path, monkeypatch):
    """All in one test, because mypy needs seconds to read the package."""
    optimizers = [f"optim.{name}" for name in optim.__all__ if name != "Optimizer"]
    operations = [f"ops.{name}" for name in ops.__all__]
    messages = checked([*EXPRESSIONS, *WRONG, *operations, *optimizers], tmp_path, monkeypatch)
    assert {e: type_of(messages[e]) for e in EXPRESSIONS} == EXPRESSIONS
    for expression, message in WRONG.items():
        errors = [text for text in messages[expression] if text.startswith("error: ")]
        assert any(message in text for text in errors), (expression, errors)
    for expression in operations:
        shown = type_of(messages[expression])
        arguments, _, result = shown.rpartition(" -> ")
        name = expression.removeprefix("ops.")
        assert result.startswith("ndarray") if name in ARRAYS else "Tensor" in result, shown
        assert name in ARRAYS or "Any" not in result, shown
        for parameter in inspect.signature(getattr(ops, name)).parameters.values():
            if parameter.kind is not parameter.POSITIONAL_ONLY:
                assert f"{parameter.name}: " in arguments, shown
    for expression in optimizers:
        assert "**" not in type_of(messages[expression]), messages[expression]


def checked(table, folder, monkeypatch):
    """The messages of mypy --strict for each expression after the script; it has none itself."""
    text = SCRIPT + "".join(f"reveal_type({expression})\n" for expression in table)
    (folder / "script.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("MYPYPATH", str(SOURCES))
    monkeypatch.chdir(folder)
    output, problems, _ = api.run(["--strict", "--config-file=", "--cache-dir=cache", "script.py"])
    assert not problems
    first = SCRIPT.count("\n") + 1
    found = {expression: [] for expression in table}
    for line in output.splitlines():
        match = re.fullmatch(r"script\.py:(\d+): (.*)", line)
        if match and not match[2].startswith('note: "'):  # where it was defined
            assert int(match[1]) >= first, line
            found[table[int(match[1]) - first]].append(match[2])
    return found


def type_of(messages):
    """The only message, a type, without the names of modules."""
    (message,) = messages
    assert message.startswith("note: Revealed type is "), message
    shown = message.removeprefix("note: Revealed type is ").strip('"')
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", shown)


MODULES = [name for name in nn.__all__ if inspect.isclass(getattr(nn, name))]
MODULES = [name for name in MODULES if issubclass(getattr(nn, name), nn.Module)]
NOT_CALLED = {"Module", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict"}


@pytest.mark.parametrize("name", [name for name in MODULES if name not in NOT_CALLED])
def test_every_module_says_what_it_takes_and_returns(name):
    signature = inspect.signature(getattr(nn, name).forward)
    assert signature.return_annotation not in ("Any", signature.empty)
    for parameter in signature.parameters.values():
        assert parameter.kind is not parameter.VAR_KEYWORD
        assert parameter.annotation != "Any" or name == "Sequential"


def test_the_package_says_that_it_has_types():
    assert (SOURCES / "anaphora" / "py.typed").is_file()
