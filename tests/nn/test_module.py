"""Modules find their parameters, name them, save and load them, and switch as one."""

import collections
import copy
import re

import numpy as np
import pytest

from anaphora import nn, optim, random
from anaphora.nn import Module, Parameter
from anaphora.tensor import Tensor


class Block(Module):
    """Parameters directly, in a list, in a dictionary, and one under two names."""

    def __init__(self):
        self.gain = Parameter([1.0, 2.0])
        self.inner = nn.Linear(3, 2)
        self.towers = [nn.Linear(2, 1, bias=False), nn.LayerNorm(4)]
        self.by_name = {"left": Parameter([3.0]), "deep": (Parameter([4.0]), nn.Dropout(0.25))}
        self.note = "not a parameter"
        self.numbers = [1, 2, 3]
        self.tied = self.inner

    def forward(self, x):
        return self.inner(x) * self.gain


class Tied(Module):
    def __init__(self):
        self.encoder = nn.Embedding(5, 3)
        self.decoder = nn.Linear(3, 5, bias=False)
        self.decoder.weight = self.encoder.weight


NAMES = [
    "gain",
    "inner.weight",
    "inner.bias",
    "towers.0.weight",
    "towers.1.weight",
    "towers.1.bias",
    "by_name.left",
    "by_name.deep.0",
]


def test_parameters_are_named_by_their_paths_in_the_order_of_assignment():
    assert [name for name, _ in Block().named_parameters()] == NAMES
    assert [name for name, _ in Block().named_parameters(prefix="block")] == [
        f"block.{name}" for name in NAMES
    ]


def test_the_named_parameters_are_the_attributes_themselves():
    block = Block()
    named = dict(block.named_parameters())
    assert named["gain"] is block.gain
    assert named["inner.bias"] is block.inner.bias
    assert named["towers.0.weight"] is block.towers[0].weight
    assert named["by_name.deep.0"] is block.by_name["deep"][0]
    assert [id(p) for p in block.parameters()] == [id(p) for p in named.values()]


def test_a_shared_parameter_counts_once_unless_every_name_is_wanted():
    block = Block()
    everything = [name for name, _ in block.named_parameters(remove_duplicate=False)]
    assert everything == [*NAMES, "tied.weight", "tied.bias"]
    assert len(list(Tied().parameters())) == 1


def test_named_modules_gives_each_once_and_parents_first():
    block = Block()
    found = dict(block.named_modules())
    assert list(found) == ["", "inner", "towers.0", "towers.1", "by_name.deep.1"]
    assert found[""] is block
    assert list(block.modules()) == list(found.values())


def test_a_parameter_assigned_later_replaces_the_first():
    block = Block()
    block.gain = Parameter([7.0, 8.0])
    assert [name for name, _ in block.named_parameters()] == NAMES
    np.testing.assert_array_equal(block.state_dict()["gain"], [7, 8])


def test_train_and_eval_reach_every_module():
    block = Block()
    assert all(module.training for module in block.modules())
    assert block.eval() is block
    assert not any(module.training for module in block.modules())
    assert block.train() is block
    assert all(module.training for module in block.modules())
    block.towers[1].eval()
    assert block.training


def test_zero_grad_forgets_every_gradient():
    block = Block()
    block(np.ones((4, 3), np.float32)).sum().backward()
    assert block.inner.weight.grad is not None
    block.zero_grad()
    assert all(parameter.grad is None for parameter in block.parameters())


def test_frozen_parameters_get_no_gradient():
    block = Block().requires_grad_(False)
    block.gain.requires_grad = True
    block(np.ones((4, 3), np.float32)).sum().backward()
    assert block.inner.weight.grad is None
    assert block.gain.grad is not None
    block.requires_grad_()
    assert all(parameter.requires_grad for parameter in block.parameters())


def test_forward_must_be_written():
    with pytest.raises(NotImplementedError, match=r"Module does not define forward"):
        Module()(1)


# state_dict and load_state_dict


def test_state_dict_has_every_name():
    state = Block().state_dict()
    assert list(state) == [*NAMES, "tied.weight", "tied.bias"]
    assert state["tied.weight"] is state["inner.weight"]


def test_a_state_stays_what_it_was_while_the_module_is_trained_and_the_other_way_round():
    layer = nn.Linear(3, 2)
    before, state = layer.weight.data.copy(), layer.state_dict()
    layer(np.ones((4, 3), np.float32)).sum().backward()
    optim.SGD(layer.parameters(), learning_rate=1.0).step()
    assert not np.array_equal(layer.weight.data, before)
    np.testing.assert_array_equal(state["weight"], before)
    layer.load_state_dict(state)
    state["weight"] += 1
    np.testing.assert_array_equal(layer.weight.data, before)


# What would be lost


def test_a_parameter_is_not_replaced_by_what_is_none():
    layer = nn.Linear(3, 2)
    parameter = layer.weight
    for value in (np.zeros((2, 3), np.float32), Tensor(np.zeros((2, 3))), parameter * 2.0, [1.0]):
        message = (
            "Linear.weight holds trained parameters; a value of type "
            f"{type(value).__name__} in its place would be neither trained nor saved: to change "
            "its numbers write 'with module.weight.writing() as array: array[...] = values'"
        )
        with pytest.raises(TypeError, match=re.escape(message)):
            layer.weight = value
    assert layer.weight is parameter
    with pytest.raises(TypeError, match=r"^Linear\.weight holds trained parameters"):
        layer.weight -= 0.1
    layer.bias = None
    assert layer.bias is None
    layer.weight = Parameter(np.zeros((2, 3)))
    assert list(layer.state_dict()) == ["weight"]


def test_modules_and_lists_of_parameters_are_not_replaced_by_what_has_none():
    block = Block()
    for name, value in {"inner": abs, "towers": [1, 2], "by_name": {"left": np.ones(1)}}.items():
        with pytest.raises(TypeError, match=rf"^Block\.{name} holds trained.*assign a Mod"):
            setattr(block, name, value)
    block.inner = nn.Sequential(nn.Linear(3, 2))
    block.towers = [nn.Linear(2, 1)]
    block.by_name = None
    block.note = np.ones(3)
    assert [n for n, _ in block.named_modules()] == ["", "inner", "inner.0", "towers.0", "tied"]


@pytest.mark.parametrize(
    "container",
    [
        lambda *modules: set(modules),
        lambda *modules: collections.deque(modules),
        lambda *modules: dict(enumerate(modules)).values(),
        lambda *modules: collections.UserDict(enumerate(modules)),
        lambda *modules: np.array([*modules, None], dtype=object),
    ],
)
def test_containers_that_are_not_searched_are_reported(container):
    module = Module()
    module.layers = container(nn.Linear(3, 2), nn.Linear(2, 1))
    with pytest.raises(TypeError, match=r"^layers: modules or parameters in a \w+ have no names"):
        list(module.parameters())
    module.layers = [nn.Linear(3, 2)]
    module.numbers = container(1, 2)
    assert len(list(module.parameters())) == 2


@pytest.mark.parametrize("value", [Parameter([1.0]), nn.Dropout(0.5), [nn.Linear(3, 2)]])
def test_parameters_of_a_class_are_reported(value):
    with pytest.raises(TypeError, match=r"^Shared\.part.* belongs to the class.*make it in __init"):
        type("Shared", (Module,), {"part": value})


def test_two_parameters_of_one_name_are_reported():
    module = Module()
    module.parts = {1: Parameter([1.0]), "1": Parameter([2.0])}
    with pytest.raises(ValueError, match=r"two parameters have the name 'parts\.1'; rename a key"):
        module.state_dict()


def test_a_state_moves_from_one_module_to_another():
    random.seed(1)
    one, other = Block(), Block()
    assert not np.array_equal(one.inner.weight.data, other.inner.weight.data)
    parameters = list(other.parameters())
    assert other.load_state_dict(one.state_dict()) == ([], [])
    for name, array in one.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)
    assert [id(p) for p in other.parameters()] == [id(p) for p in parameters]


def test_loading_copies():
    layer = nn.Linear(3, 2)
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    layer.load_state_dict({"weight": weight, "bias": np.zeros(2, np.float32)})
    weight[0, 0] = 99
    assert layer.weight.data[0, 0] == 0


def test_loading_converts_to_the_parameters_dtype():
    layer = nn.Linear(3, 2, bias=False, dtype=np.float32)
    layer.load_state_dict({"weight": np.full((2, 3), 0.1, np.float64)})
    assert layer.weight.dtype == np.float32
    np.testing.assert_array_equal(layer.weight.data, np.full((2, 3), 0.1, np.float32))


def test_a_graph_recorded_before_a_load_says_so():
    layer = nn.Linear(3, 2)
    loss = layer(np.ones((4, 3), np.float32)).sum()
    layer.load_state_dict(nn.Linear(3, 2).state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_strict_names_what_is_missing_and_unexpected():
    state = nn.Linear(3, 2).state_dict() | {"scale": np.ones(2)}
    del state["bias"]
    message = "load_state_dict: the state has no bias; Linear has no scale; strict=False loads"
    layer = nn.Linear(3, 2)
    before = layer.weight.data.copy()
    with pytest.raises(KeyError, match=re.escape(message)):
        layer.load_state_dict(state)
    np.testing.assert_array_equal(layer.weight.data, before)


def test_strict_mentions_only_the_side_that_differs():
    layer = nn.Linear(3, 2)
    with pytest.raises(KeyError, match=r"load_state_dict: the state has no bias; strict"):
        layer.load_state_dict({"weight": np.ones((2, 3))})
    with pytest.raises(KeyError, match=r"load_state_dict: Linear has no x; strict"):
        layer.load_state_dict(layer.state_dict() | {"x": np.ones(1)})


def test_not_strict_loads_what_fits_and_tells_the_rest():
    layer = nn.Linear(3, 2)
    bias = layer.bias.data.copy()
    result = layer.load_state_dict({"weight": np.ones((2, 3)), "x": np.ones(1)}, strict=False)
    assert result.missing_keys == ["bias"]
    assert result.unexpected_keys == ["x"]
    np.testing.assert_array_equal(layer.weight.data, np.ones((2, 3)))
    np.testing.assert_array_equal(layer.bias.data, bias)


@pytest.mark.parametrize("name", ["encoder.weight", "decoder.weight"])
def test_a_shared_parameter_needs_one_of_its_names(name):
    model = Tied()
    table = np.arange(15, dtype=np.float32).reshape(5, 3)
    assert model.load_state_dict({name: table}) == ([], [])
    np.testing.assert_array_equal(model.encoder.weight.data, table)
    assert model.decoder.weight is model.encoder.weight


@pytest.mark.parametrize("shape", [(12,), (1, 16), (4, 4), (1,)])
@pytest.mark.parametrize("strict", [True, False])
def test_nothing_is_loaded_when_a_shape_differs(strict, shape):
    random.seed(2)
    layer = nn.LSTM(3, 4)
    before = layer.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    state["bias_hh_l0"] = np.ones(shape, np.float32)  # the last of them
    message = f"load_state_dict: bias_hh_l0 is {shape} in the state, (16,) in the module; build the"
    with pytest.raises(ValueError, match=re.escape(message)):
        layer.load_state_dict(state, strict=strict)
    for name, array in before.items():
        np.testing.assert_array_equal(layer.state_dict()[name], array)


# Text


def test_repr_shows_the_options_what_is_inside_and_the_parameters():
    assert repr(nn.Linear(3, 2)) == "Linear(3, 2, bias=True) (8 parameters)"
    assert repr(nn.Linear(1, 1, bias=False)) == "Linear(1, 1, bias=False) (1 parameter)"
    layers = nn.Sequential(nn.Linear(300, 20), nn.Sequential(nn.Dropout(0.1), nn.LayerNorm(20)))
    layers[0].requires_grad_(False)
    assert repr(layers) == (
        "Sequential(\n"
        "  (0): Linear(300, 20, bias=True) (6,020 parameters, 6,020 of them frozen)\n"
        "  (1): Sequential(\n"
        "    (0): Dropout(p=0.1, locked=False)\n"
        "    (1): LayerNorm(20, epsilon=1e-05) (40 parameters)\n"
        "  ) (40 parameters)\n"
        ") (6,060 parameters, 6,020 of them frozen)"
    )
    assert repr(Module()) == "Module()"


def test_repr_of_a_module_with_options_and_children_has_both():
    class Model(Tied):
        def extra_repr(self):
            return "tied=True"

    assert repr(Model()) == (
        "Model(\n"
        "  tied=True\n"
        "  (encoder): Embedding(5, 3) (15 parameters)\n"
        "  (decoder): Linear(3, 5, bias=False) (15 parameters)\n"
        ") (15 parameters)"  # they share them
    )


# Buffers, hooks, conversions


class Counting(Module):
    def __init__(self):
        self.register_buffer("mean", np.array([1.0, 2.0]))
        self.register_buffer("mask", [True, False], persistent=False)
        self.count = nn.Buffer(0)
        self.inner = nn.Linear(2, 2)

    def forward(self, x):
        self.count = self.count + 1
        return self.inner(x - self.mean)


def test_buffers_are_saved_and_loaded_but_not_trained():
    module = Counting().to(np.float64)
    assert [n for n, _ in module.named_parameters()] == ["inner.weight", "inner.bias"]
    assert [n for n, _ in module.named_buffers()] == ["mean", "mask", "count"]
    assert sorted(module.state_dict()) == ["count", "inner.bias", "inner.weight", "mean"]
    x = np.random.default_rng(1).normal(size=(3, 2))
    module(x).sum().backward()
    module(x)
    assert isinstance(module.count, nn.Buffer)
    assert module.state_dict()["count"] == 2
    assert module.mean.grad is None
    state = module.state_dict()
    state["mean"] = state["mean"] * 2
    other = Counting().to(np.float64)
    assert other.load_state_dict(state) == ([], [])
    np.testing.assert_array_equal(other.mean.data, [2, 4])
    assert other.count.item() == 2
    del state["mean"]
    with pytest.raises(KeyError, match=r"load_state_dict: the state has no mean; strict=False"):
        other.load_state_dict(state)
    module.register_buffer("nothing", None)
    assert module.nothing is None
    for name in ("mean", "forward", "a.b"):
        with pytest.raises(ValueError, match=rf"^register_buffer: '{name}' is not a name that is"):
            module.register_buffer(name, [1.0])
    copied = copy.deepcopy(module)
    with copied.mean.writing() as array:
        array[...] = 7
    assert list(copied.state_dict()) == list(module.state_dict())
    assert not (module.mean.data == 7).any()
    assert not copied.mask.persistent


def test_a_session_keeps_the_buffers_that_it_was_made_with():
    class Model(Module):
        def __init__(self):
            self.norm = nn.BatchNorm1d(3)
            self.recurrent = nn.GRU(3, 4)

        def forward(self, x):
            return self.recurrent(self.norm(x))[0]

    model = Model().eval()
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    session = nn.Session(model.recurrent, module=model, before=lambda model, x: model.norm(x))
    expected = model(x[:, None]).data[:, 0]
    model.train()(x[:, None] * 5)  # moves the statistics
    found = [session.feed(step) for step in x]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_forward_hooks_see_and_change_what_passes():
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    seen = []
    handle = model[0].register_forward_hook(
        lambda module, arguments, output: seen.append((module, arguments[0].shape, output.shape))
    )
    x = np.ones((4, 3), np.float32)
    before = model(x).data
    assert seen == [(model[0], (4, 3), (4, 2))]
    doubled = model.register_forward_hook(lambda module, arguments, output: output * 2)
    np.testing.assert_array_equal(model(x).data, before * 2)
    model.register_forward_hook(lambda module, arguments, output: output + 1)  # in their order
    np.testing.assert_array_equal(model(x).data, before * 2 + 1)
    doubled.remove()
    with model.register_forward_pre_hook(lambda module, arguments: (arguments[0] * 0,)):
        np.testing.assert_array_equal(model(x).data, model[1](model[0](x * 0)).data + 1)
    with model.register_forward_pre_hook(lambda module, arguments: arguments[0] * 0):
        np.testing.assert_array_equal(model(x).data, model[1](model[0](x * 0)).data + 1)
    count = len(seen)
    handle.remove()
    np.testing.assert_array_equal(model(x).data, before + 1)
    assert len(seen) == count
    assert list(model.state_dict()) == ["0.weight", "0.bias"]


def test_apply_reaches_children_first():
    block, order = Block(), []
    assert block.apply(lambda module: order.append(module)) is block
    assert order[-1] is block
    assert {id(m) for m in order} == {id(m) for m in block.modules()}
    assert [name for name, _ in block.named_children()] == [
        "inner", "towers.0", "towers.1", "by_name.deep.1"
    ]  # fmt: skip
    assert [id(m) for m in block.children()] == [id(m) for _, m in block.named_children()]


def test_to_converts_parameters_and_buffers_of_floats():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LSTM(4, 2), nn.Dropout(0.0))
    x = np.random.default_rng(1).normal(size=(5, 2, 3))
    model = model.eval()[:3]
    y = model(x)[0]
    y.sum().backward()
    assert model.double() is model
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float64)}
    assert all(p.grad is None for p in model.parameters())
    assert model[1].num_batches_tracked.dtype == np.int64
    again = model(x)[0]
    assert again.dtype == np.float64
    np.testing.assert_allclose(again.data, y.data, rtol=1e-5, atol=1e-6)
    model.float()
    np.testing.assert_array_equal(model(x)[0].data, y.data)
    assert model.to("cpu") is model
    for target in ("cuda", np.int64, "float16"):
        with pytest.raises(ValueError, match=r"^to: .* is neither float32 nor float64; everything"):
            model.to(target)
    loss = model(x)[0].sum()
    model.double()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()
