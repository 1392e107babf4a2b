"""Names of other libraries are answered with what to write here, from one table."""

import copy
import importlib.util
import pickle
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import anaphora
from anaphora import Parameter, RowGradient, Tensor, cells, foreign_names, nn, ops, optim, training
from anaphora.foreign_names import ALSO, NAMES

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "coming-from.md"


def weights():
    return [Parameter([1.0, 2.0])]


HOLDERS = {
    "Tensor": lambda: Tensor([1.0]),
    "RowGradient": lambda: RowGradient(np.array([1]), np.ones((1, 2)), (3, 2)),
    "Module": lambda: nn.LSTM(3, 4),
    "Optimizer": lambda: optim.Adam(weights()),
    "Schedule": lambda: optim.Constant(optim.Adam(weights())),
    "anaphora": lambda: anaphora,
    "anaphora.nn": lambda: nn,
    "anaphora.ops": lambda: ops,
    "anaphora.nn.init": lambda: nn.init,
    "anaphora.optim": lambda: optim,
    "anaphora.training": lambda: training,
}
ROWS = [(owner, names, NAMES[owner][names]) for owner in HOLDERS for names in NAMES[owner]]


def test_the_rows_of_every_owner_are_asked_for():
    assert NAMES.keys() == {*HOLDERS, "arguments"}
    assert all(ALSO.keys() <= HOLDERS.keys() >= set(others) for others in ALSO.values())


@pytest.mark.parametrize(("owner", "names", "text"), ROWS)
def test_a_foreign_name_is_answered_and_is_not_there(owner, names, text):
    holder = HOLDERS[owner]()
    for name in names.split():
        assert not hasattr(holder, name)
        with pytest.raises(AttributeError) as raised:
            getattr(holder, name)
        assert repr(name) in str(raised.value)
        assert str(raised.value).endswith(text.replace("`", ""))


def test_answers_as_they_are_read():
    x, model = Tensor([1.0]), nn.Sequential(nn.Linear(3, 2))
    for ask, message in {
        lambda: x.view(1): "Tensor has no attribute 'view': write x.reshape(...)",
        lambda: x.softplus(): "Tensor has no attribute 'softplus': write ops.softplus(x)",
        lambda: model.cuda(): "Sequential has no attribute 'cuda': omit it: everything runs "
        "on the CPU; module.to(dtype) converts the numbers",
        lambda: nn.KLDivLoss: "module 'anaphora.nn' has no attribute 'KLDivLoss': write "
        "(p * (ops.log(p) - log_q)).sum()",
        lambda: anaphora.LSTM: "module 'anaphora' has no attribute 'LSTM': write anaphora.nn.LSTM",
        lambda: anaphora.lstm: "module 'anaphora' has no attribute 'lstm': write "
        "anaphora.cells.lstm",
        lambda: anaphora.exp: "module 'anaphora' has no attribute 'exp': write anaphora.ops.exp",
        lambda: nn.Nonsense: "module 'anaphora.nn' has no attribute 'Nonsense'",
        lambda: x.nonsense: "'Tensor' object has no attribute 'nonsense'",
        lambda: model.nonsense: "'Sequential' object has no attribute 'nonsense'",
    }.items():
        with pytest.raises(AttributeError) as raised:
            ask()
        assert str(raised.value) == message


PACKAGES = [owner for owner, made in HOLDERS.items() if hasattr(made(), "__path__")]


@pytest.mark.parametrize("owner", PACKAGES)
def test_imports_are_answered_too(owner):
    for names, text in NAMES[owner].items():
        name = names.split()[0]
        with pytest.raises(ImportError) as raised:
            exec(f"from {owner} import {name}")
        assert str(raised.value).startswith(f"cannot import name {name!r} from {owner!r}: ")
        assert str(raised.value).endswith(text.replace("`", ""))
    with pytest.raises(ImportError, match="cannot import name 'Nonsense'"):
        exec(f"from {owner} import Nonsense")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optim.Adam(weights(), lr=0.1), "Adam: there is no argument 'lr': write learning_"),
        (lambda: anaphora.tensor([1.0]), "anaphora.tensor is a module: write anaphora.Tensor"),
        (lambda: optim.SGD(weights(), lr=0.1), "SGD: there is no argument 'lr'"),
        (lambda: optim.Adam(weights(), eps=1e-8), "Adam: .* 'eps': write epsilon="),
        (lambda: nn.LSTM(3, 4, device="cpu"), "LSTM: .* 'device': omit it: everything runs"),
        (lambda: nn.LSTM(3, 4, return_sequences=True), "LSTM: .* 'return_sequences': omit it"),
        (lambda: nn.LSTM(units=4), "LSTM: .* 'units': write hidden_size="),
        (lambda: nn.LayerNorm(4, eps=1e-3), "LayerNorm: .* 'eps': write epsilon="),
        (lambda: nn.Softmax(dim=1), "Softmax: .* 'dim': write axis="),
        (lambda: nn.ReLU(inplace=True), "ReLU: .* 'inplace': omit it"),
        (lambda: nn.BatchNorm1d(3, eps=1e-3), "BatchNorm1d: .* 'eps': write epsilon="),
        (lambda: nn.LSTMCell(3, 4)(np.ones((2, 3)), hx=None), "forward: .* 'hx': write state="),
        (lambda: optim.Cosine(optim.SGD(weights(), 1.0), T_max=3), "Cosine: .* 'T_max': .*total_"),
        (lambda: ops.softmax(Tensor([1.0]), dim=0), "softmax: .* 'dim': write axis="),
        (lambda: Tensor([1.0]).sum(dim=0), "sum: .* 'dim': write axis="),
        (lambda: Tensor([1.0]).mean(0, keepdim=True), "mean: .* 'keepdim': write keepdims="),
        (lambda: ops.concatenate([[1.0]], dim=0), "concatenate: .* 'dim': write axis="),
        (lambda: ops.dropout(Tensor([1.0]), p=0.5), "dropout: .* 'p': write rate="),
        (lambda: nn.LSTM(3, 4)(np.ones((5, 2, 3), "f"), h0=None), "forward: .* 'h0': write state="),
        (lambda: Tensor([1.0]).backward(create_graph=True), "backward: .* 'create_graph': omit it"),
        (
            lambda: nn.Linear(3, 4).zero_grad(set_to_none=True),
            "zero_grad: .* 'set_to_none': omit it",
        ),
        (lambda: optim.SGD(weights(), 0.1).zero_grad(set_to_none=True), "zero_grad: .* 'set_to_n"),
        (
            lambda: nn.Conv1d(3, 4, 3, padding_mode="circular"),
            "Conv1d: .* 'padding_mode': write op",
        ),
        (lambda: nn.Embedding(3, 4, max_norm=1.0), "Embedding: .* 'max_norm': omit it"),
        (lambda: nn.Softplus(beta=2.0), "Softplus: .* 'beta': write ops.softplus"),
        (lambda: ops.softplus([1.0], beta=2.0), "softplus: .* 'beta': write ops.softplus"),
        (lambda: ops.huber_loss([1.0], [2.0], beta=2.0), "huber_loss: .* 'beta': write delta="),
        (lambda: optim.ASGD(weights(), 0.1, alpha=0.7), "ASGD: .* 'alpha': omit it: averages"),
        (lambda: optim.ASGD(weights(), 0.1, lambd=0.7), "ASGD: .* 'lambd': omit it: averages"),
        (lambda: nn.GroupNorm(2, 4, bias=False), "GroupNorm: .* 'bias': write layer.bias"),
        (lambda: nn.BatchNorm1d(2, bias=False), "BatchNorm1d: .* 'bias': write layer.bias"),
        (lambda: nn.GLU(dim=1), "GLU: .* 'dim': write axis="),
        (lambda: nn.CosineSimilarity(eps=1e-4), "CosineSimilarity: .* 'eps': write epsilon="),
        (
            lambda: ops.gumbel_softmax([1.0], tau=0.5),
            "gumbel_softmax: .* 'tau': write temperature=",
        ),
        (
            lambda: training.DataLoader([1.0], num_workers=2),
            "DataLoader: .* 'num_workers': omit it",
        ),
        (lambda: optim.clip_grad_value(weights(), clip_value=1.0), "clip_grad_value: .*limit="),
    ],
)
def test_foreign_arguments_are_answered(call, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        call()


@pytest.mark.parametrize(("names", "text"), NAMES["arguments"].items())
def test_each_argument_is_answered(names, text):
    for full_name in names.split():
        owner, _, name = full_name.rpartition(".")
        refuse = ops.exp if not owner else partial(foreign_names.check_arguments, owner, [name])
        with pytest.raises(TypeError) as raised:
            refuse([], **({} if owner else {name: 1}))
        assert str(raised.value).startswith(f"{owner or 'exp'}: there is no argument {name!r}: ")
        assert str(raised.value).endswith(text.replace("`", ""))


def test_a_function_is_answered_as_the_method_of_its_name():
    for space in (anaphora, ops):
        with pytest.raises(AttributeError, match=r"'logical_and': write mask & other, mask \| ot"):
            _ = space.logical_and
    with pytest.raises(AttributeError, match=r"^module 'anaphora' has no attribute 'kl_div': wri"):
        _ = anaphora.kl_div
    with pytest.raises(AttributeError, match=r"^'Tensor' object has no attribute 'kl_div'"):
        _ = Tensor([1.0]).kl_div


def test_other_wrong_arguments_are_what_python_says():
    for call in (
        lambda: optim.Adam(weights(), nonsense=1),
        lambda: nn.LSTM(3, 4, nonsense=1),
        lambda: ops.softmax(Tensor([1.0]), nonsense=0),
    ):
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'nonsense'"):
            call()


def test_a_subclass_may_use_any_name():
    class Own(nn.Module):
        def __init__(self, lr, **options):
            self.lr, self.options = lr, options
            self.device = "here"

        @property
        def to(self):
            return self.missing

    own = Own(lr=1, device=2)
    assert (own.lr, own.options, own.device) == (1, {"device": 2}, "here")
    with pytest.raises(AttributeError, match=r"^'Own' object has no attribute 'missing'"):
        _ = own.to  # what is missing within a property is told, not the property

    class Layer(nn.LSTM):
        def __init__(self, *sizes, **options):
            options.pop("device")
            super().__init__(*sizes, **options)

    assert Layer(3, 4, device="cpu").hidden_size == 4


@pytest.mark.parametrize(
    "made", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))]
)
def test_asking_while_a_copy_is_made_does_no_harm(made):
    for owner in ("Tensor", "RowGradient", "Module", "Optimizer", "Schedule"):
        assert type(made(HOLDERS[owner]())) is type(HOLDERS[owner]())


def test_the_guide_shows_the_table():
    text = GUIDE.read_text(encoding="utf-8")
    shown = re.search(r"<!-- names -->\n\n(.*)\n<!-- end of names -->", text, re.DOTALL)
    assert shown, "docs/guide/coming-from.md has no place for the table"
    assert shown[1] == foreign_names.markdown(), (
        "put what 'python -c \"from anaphora import foreign_names as f; print(f.markdown())\"' "
        "prints there"
    )


def test_what_the_table_offers_is_there():
    """Names after ``ops.`` and so on, in the texts, are names that there are."""
    spaces = {"ops": ops, "nn": nn, "optim": optim, "cells": cells, "anaphora": anaphora}
    for part in ("data", "training", "models", "artifact", "engine", "random", "tensor"):
        spaces[part] = importlib.import_module(f"anaphora.{part}")
    texts = " ".join(text for names in NAMES.values() for text in names.values())
    found = re.findall(rf"(?<![.\w])({'|'.join(spaces)})\.([A-Za-z]\w*)", texts)
    assert len(found) > 40
    for space, name in found:
        assert hasattr(spaces[space], name), f"{space}.{name}"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "import anaphora.nn.functional as F",
            "'functional' from 'anaphora.nn': write anaphora.ops",
        ),
        ("from anaphora.nn.utils.rnn import pad_sequence", "'utils' from 'anaphora.nn': write"),
        (
            "from anaphora.optim.lr_scheduler import StepLR",
            "'lr_scheduler' from 'anaphora.optim': sch",
        ),
        ("from anaphora import Tensor, LSTM", "'LSTM' from 'anaphora': write anaphora.nn.LSTM"),
    ],
)
def test_imports_of_modules_are_answered(statement, message):
    with pytest.raises(ImportError, match=f"^cannot import name {message}"):
        exec(statement)


def test_other_modules_that_are_missing_are_what_python_says():
    for name in ("anaphora.nn.nonsense", "no_such_module.functional"):
        with pytest.raises(ModuleNotFoundError, match=r"^No module named"):
            importlib.import_module(name)
    assert importlib.util.find_spec("anaphora.nonsense") is None


# The parts of the package

LAZY = ("artifact", "data", "generation", "models", "plot", "synthetic", "training")


def test_importing_the_package_brings_its_parts_when_they_are_used():
    code = (
        "import sys, anaphora\n"
        f"assert not {{'anaphora.' + p for p in {LAZY}}} & sys.modules.keys(), sys.modules.keys()\n"
        f"assert set({LAZY}) <= set(dir(anaphora))\n"
        f"for part in {LAZY}: assert getattr(anaphora, part).__name__ == 'anaphora.' + part\n"
        "assert anaphora.models.LanguageModel and anaphora.tensor.Tensor\n"
        "from anaphora import training, plot\n"
        "from anaphora import *\n"
        "assert models is anaphora.models\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_that_is_named_is_there():
    assert [name for name in anaphora.__all__ if not hasattr(anaphora, name)] == []
