"""Lists and dictionaries that are modules."""

import copy
import pickle

import numpy as np
import pytest

from anaphora import nn
from anaphora.tensor import Tensor


class Model(nn.Module):
    def __init__(self):
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.heads = nn.ModuleDict({"one": nn.Linear(3, 2), "two": nn.Dropout(0.5)})
        self.scales = nn.ParameterList([[2.0], Tensor([3.0])])
        self.shifts = nn.ParameterDict({"low": [-1.0]})

    def forward(self, x):
        for layer, scale in zip(self.layers[:2], self.scales, strict=True):
            x = layer(x) * scale
        return self.heads["one"](x + self.shifts["low"])


def test_containers_do_what_lists_and_dictionaries_do():
    model = Model()
    extra = nn.LayerNorm(3)
    model.layers.append(extra)
    model.layers.insert(0, nn.Dropout(0.25))
    assert len(model.layers) == 5
    assert model.layers[-1] is extra
    assert model.layers[1:3] == [model.layers[1], model.layers[2]]
    del model.layers[2]
    names = [name for name, _ in model.layers.named_modules()]
    assert names == ["", "0", "1", "2", "3"]
    assert [name for name, _ in model.layers.named_parameters()][:2] == ["1.weight", "1.bias"]
    assert "layers.1.weight" in model.state_dict()
    model.heads["three"] = nn.Linear(2, 2)
    assert list(model.heads) == ["one", "two", "three"]
    assert "heads.three.weight" in model.state_dict()
    model.eval()
    assert not model.layers[0].training
    assert not model.heads["two"].training
    assert nn.ModuleList([extra]) != nn.ModuleList([extra])  # modules are equal to themselves
    assert {model.layers: 1}[model.layers] == 1
    nn.ModuleList([])


@pytest.mark.parametrize(
    "made", [copy.copy, copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))]
)
def test_copies_of_containers_hold_the_same(made):
    model = Model()
    other = made(model)
    assert list(other.state_dict()) == list(model.state_dict())
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(other(x).data, model(x).data)
    assert isinstance(made(model.layers), nn.ModuleList)
    assert isinstance(made(model.heads)["one"], nn.Linear)


def test_containers_show_what_they_hold():
    text = repr(nn.ModuleList([nn.Linear(3, 2), nn.Dropout(0.5)]))
    assert text == (
        "ModuleList(\n  (0): Linear(3, 2, bias=True) (8 parameters)\n"
        "  (1): Dropout(p=0.5, locked=False)\n) (8 parameters)"
    )
    assert "(two): Dropout" in repr(Model())


def test_containers_tell_what_does_not_fit():
    with pytest.raises(TypeError, match=r"^ModuleList: .*lambda.* is not a Module; wrap it in one"):
        nn.ModuleList([nn.Linear(3, 2), lambda x: x])
    with pytest.raises(TypeError, match=r"^ModuleList: it takes a list of modules; write ModuleLi"):
        nn.ModuleList(nn.Linear(3, 2))
    with pytest.raises(TypeError, match=r"^ModuleDict: 3 is not a Module"):
        nn.ModuleDict({"a": 3})
    with pytest.raises(TypeError, match=r"^ModuleList: it holds its items and computes nothing"):
        nn.ModuleList([nn.Linear(3, 2)])(np.ones(3))


def test_sequential_takes_names_slices_and_more_modules():
    model = nn.Sequential({"first": nn.Linear(3, 4), "second": nn.ReLU()})
    assert list(model.state_dict()) == ["first.weight", "first.bias"]
    assert model.append(nn.Linear(4, 2)) is model
    assert [type(m).__name__ for m in model[1:]] == ["ReLU", "Linear"]
    x = np.ones((5, 3), np.float32)
    np.testing.assert_array_equal(model(x).data, model[1:](model[0](x)).data)
    with pytest.raises(TypeError, match=r"^Sequential: 3 is not a Module"):
        model.append(3)
    with pytest.raises(TypeError, match=r"^Sequential: 3 is not a Module"):
        nn.Sequential({"a": 3})
