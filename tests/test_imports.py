"""Each public name works in a fresh interpreter that imports it and nothing else."""

import pytest

import anaphora

# What a program does first with each name that it imports from the package.
USES = {
    "Cell": "Cell.__doc__",
    "Gate": "Gate.__doc__",
    "Parameter": "(Parameter([1.0]) * 2).sum().backward()",
    "RowGradient": "RowGradient([1], [[1.0, 2.0]], (3, 2)).dense()",
    "Tensor": "Tensor([1.0], requires_grad=True).sum().backward()",
    "__version__": "__version__.split('.')",
    "arange": "arange(3).argmax()",
    "artifact": "artifact.write_weights",
    "cell": "cell.__doc__",
    "cells": "cells.lstm.states",
    "data": "data.CharacterTokenizer('ab').encode('ba')",
    "detach": "detach((1.0, 2.0))",
    "differentiable": "differentiable(lambda x, /: (x * x, lambda dy: dy))([1.0]).mean()",
    "distributed": "distributed.world().rank",
    "engine": "engine.info()",
    "equations": "equations.sigmoid(0.0)",
    "full_like": "full_like([1.0], 2).sum()",
    "full": "full((2, 3), 0.5).reshape(3, 2)",
    "generation": "generation.generate",
    "hook": "hook.__doc__",
    "load": "load.__doc__",
    "matmul_precision": "matmul_precision('bfloat16').__enter__()",
    "metrics": "metrics.__all__",
    "models": "models.LanguageModel(5)([[1, 2]])[0].sum().backward()",
    "multinomial": "multinomial([0.5, 0.5], 1) + 1",
    "nn": "nn.GRU(3, 4)(nn.Parameter([[[1.0, 2.0, 3.0]]]))[0].norm().backward()",
    "no_grad": "no_grad().__enter__()",
    "ones_like": "ones_like([1.0]).sum()",
    "ones": "ones(2, 3).T @ ones(2)",
    "ops": "ops.softmax([1.0, 2.0]).max()",
    "optim": "optim.SGD.__doc__",
    "plot": "plot.cell",
    "rand_like": "rand_like([1.0]).sum()",
    "rand": "rand(2, 3)[0]",
    "randint": "[row for row in randint(0, 3, (2,))]",
    "randn_like": "randn_like([1.0]).sum()",
    "randn": "randn(2, 3).std()",
    "random": "random.seed(1)",
    "set_matmul_precision": "set_matmul_precision('bfloat16')",
    "synthetic": "synthetic.__all__",
    "tensor": "tensor.Tensor([1.0]).exp()",
    "training": "training.DataLoader([1.0, 2.0])",
    "zeros_like": "zeros_like([1.0]).sum()",
    "zeros": "zeros(2, 3) + 1",
}


def test_all_names_are_used():
    assert USES.keys() == set(anaphora.__all__)


@pytest.mark.parametrize("name", USES)
def test_a_name_works_without_further_imports(fresh_interpreter, name):
    fresh_interpreter(f"from anaphora import {name}\n{USES[name]}")


# Operations are registered by a module of their own, which these do not import.
@pytest.mark.parametrize(
    "code",
    [
        "from anaphora.tensor import Tensor\nassert Tensor([1.0, 2.0]).sum().item() == 3",
        "from anaphora.tensor import Tensor\nassert (1 - Tensor([3.0])).item() == -2",
        "import numpy as np\nfrom anaphora.tensor import Tensor\n"
        "np.sum(Tensor([1.0], requires_grad=True)).backward()",
        "import numpy as np\nfrom anaphora.tensor import Tensor\n"
        "np.exp(Tensor([1.0], requires_grad=True)).backward()",
        "from anaphora.tensor import Tensor\ntry:\n    Tensor([1.0]).softplus\n"
        "except AttributeError as error:\n    assert 'write ops.softplus(x)' in str(error)",
        "import threading\nfrom anaphora.tensor import Tensor\nsums = []\n"
        "def add(): sums.append(Tensor([1.0, 2.0]).sum().item())\n"
        "threads = [threading.Thread(target=add) for _ in range(4)]\n"
        "for t in threads: t.start()\nfor t in threads: t.join()\nassert sums == [3.0] * 4",
    ],
)
def test_methods_find_their_operations(fresh_interpreter, code):
    fresh_interpreter(code)
