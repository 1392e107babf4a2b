"""Parameter groups against one optimiser a group, frozen parameters, averages of any optimiser."""

import json

import numpy as np
import pytest

from anaphora import nn
from anaphora.optim import (
    ASGD,
    OPTIMIZERS,
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    ExponentialDecay,
    ReduceOnPlateau,
    WarmUp,
    discriminative_groups,
    freeze,
    layer_groups,
    matching,
)
from anaphora.tensor import Parameter, RowGradient

SHAPES = {"embedding": (5, 3), "weight": (4, 2), "bias": (2,)}


def make(dtype=np.float32, seed=0):
    generator = np.random.default_rng(seed)
    parameters = {
        name: Parameter(generator.standard_normal(shape).astype(dtype))
        for name, shape in SHAPES.items()
    }
    steps = [
        {name: generator.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
        for _ in range(8)
    ]
    return parameters, steps


def run(optimizers, parameters, steps, schedules=()):
    for number, gradients in enumerate(steps):
        for schedule in schedules:
            schedule.on_epoch(number)
            schedule.on_step(number)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name] if parameter.requires_grad else None
        for optimizer in optimizers:
            optimizer.step()
        for schedule in schedules:
            schedule.on_evaluation(abs(number - 3))


def assert_same_bits(parameters, others):
    for name, parameter in parameters.items():
        assert parameter.data.tobytes() == others[name].data.tobytes(), name


def groups_of(parameters):
    return [
        {"params": [("embedding", parameters["embedding"])], "lr": 0.005},
        {"parameters": [("weight", parameters["weight"])]},
        {"parameters": [("bias", parameters["bias"])], "learning_rate": 0.1, "weight_decay": 0.0},
    ]


SCHEDULES = {
    "constant": Constant,
    "cosine": lambda optimizer: Cosine(optimizer, total_steps=9),
    "warm-up": lambda optimizer: WarmUp(Constant(optimizer), steps=4),
    "plateau": ReduceOnPlateau,
    "exponential": lambda optimizer: ExponentialDecay(optimizer, constant_epochs=2),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_groups_are_optimizers_side_by_side(kind, schedule, dtype):
    parameters, steps = make(dtype)
    optimizer = kind(groups_of(parameters), 0.02, weight_decay=0.3)
    run([optimizer], parameters, steps, [schedule(optimizer)])

    apart, _ = make(dtype)
    optimizers = [
        kind([("embedding", apart["embedding"])], 0.005, weight_decay=0.3),
        kind([("weight", apart["weight"])], 0.02, weight_decay=0.3),
        kind([("bias", apart["bias"])], 0.1, weight_decay=0.0),
    ]
    run(optimizers, apart, steps, [schedule(optimizer) for optimizer in optimizers])
    for name in SHAPES:
        rtol = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(parameters[name].data, apart[name].data, rtol=rtol, atol=1e-6)
    found = [group["learning_rate"] for group in optimizer.groups]
    np.testing.assert_allclose(found, [o.learning_rate for o in optimizers], rtol=1e-12)
    assert optimizer.groups[1]["learning_rate"] == optimizer.learning_rate


def test_a_group_without_numbers_of_its_own_is_no_group_to_the_state():
    parameters, steps = make()
    grouped = Adam([{"params": parameters.items()}], 0.1)
    copies, _ = make()
    plain = Adam(copies.items(), 0.1)
    run([grouped], parameters, steps)
    run([plain], copies, steps)
    assert_same_bits(parameters, copies)
    state, expected = grouped.state_dict(), plain.state_dict()
    arrays, others = state.pop("arrays"), expected.pop("arrays")
    assert state == expected
    assert {k: a.tobytes() for k, a in arrays.items()} == {
        k: a.tobytes() for k, a in others.items()
    }
    assert repr(grouped) == repr(plain)


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
@pytest.mark.parametrize("decay", [None, 0.7])
def test_groups_and_averages_are_restored_bit_for_bit(kind, decay):
    parameters, steps = make()
    optimizer = kind(groups_of(parameters), 0.02, weight_decay=0.3)
    run([optimizer], parameters, steps[:2])
    optimizer.learning_rate = 0.007
    optimizer.start_averaging(decay)
    run([optimizer], parameters, steps[2:5])
    state = optimizer.state_dict()
    copies = {name: Parameter(p.data) for name, p in parameters.items()}
    run([optimizer], parameters, steps[5:])

    arrays = state.pop("arrays")
    state = {**json.loads(json.dumps(state)), "arrays": arrays}
    other = [{**group, "lr": 3.0} for group in groups_of(copies)]
    other = [{k: v for k, v in g.items() if k != "learning_rate"} for g in other]
    restored = kind(other, 1.0)  # all numbers come from the state
    restored.load_state_dict(state)
    run([restored], copies, steps[5:])
    assert restored.groups == optimizer.groups
    assert_same_bits(parameters, copies)
    with optimizer.averaged(), restored.averaged():
        assert_same_bits(parameters, copies)


def test_names_count_through_the_groups():
    a, b, c = (Parameter([1.0]) for _ in range(3))
    optimizer = SGD([{"params": [a, b], "lr": 1.0}, {"params": [c]}], 0.5, weight_decay=0.25)
    assert optimizer.groups == [
        {"parameters": ["0", "1"], "learning_rate": 1.0, "weight_decay": 0.25},
        {"parameters": ["2"], "learning_rate": 0.5, "weight_decay": 0.25},
    ]
    assert repr(optimizer) == (
        "SGD(parameters=3, groups=2, learning_rate=0.5, momentum=0.0, nesterov=False, "
        "weight_decay=0.25)"
    )


def test_rows_of_one_group_may_be_kept_while_those_of_another_decay():
    tables = [Parameter(np.ones((3, 1))) for _ in range(2)]
    optimizer = SGD(
        [{"params": [tables[0]]}, {"params": [tables[1]], "weight_decay": 0.5}], learning_rate=0.5
    )
    for table in tables:
        table.grad = RowGradient(np.array([1]), np.ones((1, 1)), (3, 1))
    optimizer.step()
    assert tables[0].data.ravel().tolist() == [1, 0.5, 1]
    assert tables[1].data.ravel().tolist() == [0.75, 0.25, 0.75]


def test_bad_groups_are_reported():
    a, b = Parameter([1.0]), Parameter([2.0])
    cases = [
        ([{"params": [a], "beta": 1}], "SGD: group 0 has 'beta'; a group has 'parameters' and "),
        ([{"lr": 1.0}], r"SGD: group 0 has the keys \['lr'\]; a group has 'parameters'"),
        ([{"params": [a], "parameters": [b]}], "SGD: group 0 has the keys"),
        (
            [{"params": [a]}, {"params": [b], "lr": -1}],
            "group 1: learning_rate must be a finite number",
        ),
        (
            [{"params": [a], "weight_decay": np.nan}],
            "group 0: weight_decay must be a finite number",
        ),
        ([{"params": [a]}, {"params": [a]}], "parameter '1' is the same as '0'; give it once"),
        ([{"params": [("w", a)]}, {"params": [("w", b)]}], "two parameters are named 'w'"),
        ([{"params": []}], "SGD: group 0: there are no parameters"),
    ]
    for groups, message in cases:
        with pytest.raises(ValueError, match=message):
            SGD(groups, 1.0)
    with pytest.raises(
        ValueError, match="in proportion to learning_rate, which is 0; give one > 0"
    ):
        SGD([{"params": [a], "lr": 1.0}], 0.0)
    with pytest.raises(TypeError, match="group 0: expects a list of parameters, not Parameter"):
        SGD([{"params": a}], 1.0)


def test_a_state_of_other_groups_is_refused():
    parameters, _ = make()
    grouped = SGD(groups_of(parameters), 0.02)
    plain = SGD(parameters.items(), 0.02)
    with pytest.raises(ValueError, match="SGD: the state has no groups, but this optimizer has 3"):
        grouped.load_state_dict(plain.state_dict())
    with pytest.raises(ValueError, match="SGD: the groups in the state differ"):
        plain.load_state_dict(grouped.state_dict())


def test_numbers_of_a_state_are_checked_and_nothing_changes():
    parameters, steps = make()
    optimizer = SGD(groups_of(parameters), 0.02)
    optimizer.start_averaging(0.5)
    run([optimizer], parameters, steps[:1])
    good = optimizer.state_dict()
    bad_group = [{**good["groups"][0], "learning_rate": -1.0}, *good["groups"][1:]]
    cases = [
        ({"average_decay": 1.0}, "SGD: average_decay must be a number >= 0 and < 1, not 1.0"),
        ({"groups": bad_group}, "SGD: learning_rate must be a finite number >= 0, not -1.0"),
        (
            {"initial_learning_rate": np.nan},
            "SGD: initial_learning_rate must be a finite number >= 0",
        ),
        ({"initial_learning_rate": 0.0}, "change in proportion to learning_rate, which is 0"),
    ]
    for changes, message in cases:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict({**good, **changes, "learning_rate": 7.0})
        assert optimizer.learning_rate == 0.02
        assert optimizer.state_dict()["groups"] == good["groups"]


# Frozen parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_a_frozen_parameter_has_no_state_until_its_first_step(kind):
    parameters, steps = make()
    parameters["embedding"].requires_grad = False
    before = parameters["embedding"].data.copy()
    optimizer = kind(parameters.items(), 0.05)
    optimizer.start_averaging(0.5)
    run([optimizer], parameters, steps[:3])
    np.testing.assert_array_equal(parameters["embedding"].data, before)
    state = optimizer.state_dict()
    assert not [name for name in state["arrays"] if name.startswith("embedding.")]
    assert state["steps"] == {"embedding": 0, "weight": 3, "bias": 3}

    copies = {name: Parameter(p.data) for name, p in parameters.items()}
    copies["embedding"].requires_grad = False
    restored = kind(copies.items(), 0.05)
    restored.load_state_dict(state)
    for some in (parameters, copies):
        some["embedding"].requires_grad = True
    values = [before.astype(float)] * 3
    for step in steps[3:]:
        run([optimizer], parameters, [step])
        run([restored], copies, [step])
        values.append(parameters["embedding"].data.astype(float))
    assert_same_bits(parameters, copies)
    average = 0.0
    for n, value in enumerate(values, start=1):
        average = average + (value - average) * max(0.5, 10 / (n + 9))
    with optimizer.averaged():  # as if it had been there from the start
        np.testing.assert_allclose(parameters["embedding"].data, average, rtol=1e-5)


def test_arrays_that_are_needed_are_missed():
    parameters, steps = make()
    optimizer = Adam(parameters.items())
    run([optimizer], parameters, steps[:1])
    state = optimizer.state_dict()
    del state["arrays"]["bias.first_moment"]
    parameters["bias"].requires_grad = False
    with pytest.raises(ValueError, match=r"the state has no array 'bias\.first_moment'"):
        optimizer.load_state_dict(state)


# Averages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("kind", OPTIMIZERS.values())
def test_an_exponential_moving_average_is_that_of_the_values(kind, decay):
    parameters, steps = make(np.float64)
    optimizer = kind(parameters.items(), 0.05)
    run([optimizer], parameters, steps[:2])
    optimizer.start_averaging(decay)
    average = dict.fromkeys(SHAPES, 0.0)
    for n, step in enumerate(steps[2:] + steps, start=1):
        run([optimizer], parameters, [step])
        share = min(decay, (n - 1) / (n + 9))
        for name, p in parameters.items():
            average[name] = share * average[name] + (1 - share) * p.data
    before = {name: Parameter(p.data) for name, p in parameters.items()}
    with optimizer.averaged():
        for name, p in parameters.items():
            np.testing.assert_allclose(p.data, average[name], rtol=1e-12, atol=1e-12)
        with pytest.raises(RuntimeError, match=f"{kind.__name__}: a step within averaged"):
            optimizer.step()
    assert_same_bits(parameters, before)


@pytest.mark.parametrize("decay", [0, 1, -0.5, np.nan, "0.9"])
def test_a_decay_out_of_its_range_is_reported(decay):
    with pytest.raises(ValueError, match=r"AdamW: decay must be a number >=? 0 and < 1, not"):
        AdamW([Parameter([1.0])]).start_averaging(decay)


def test_the_state_of_asgd_has_its_average_before_it_averages():
    weight = Parameter([1.0])
    state = ASGD([("weight", weight)], 1.0).state_dict()
    assert state["averaged_steps"] is None
    assert list(state["arrays"]) == ["weight.average"]
    assert "averaged_steps" not in SGD([weight], 1.0).state_dict()


# By names ---------------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(5, 3)
        self.reader = nn.Sequential(nn.LSTM(3, 4, num_layers=2, bidirectional=True))
        self.output = nn.Linear(8, 2)


def test_freezing_by_patterns():
    model = Model()
    names = freeze(model.named_parameters(), ["embedding.*", "*_l[0]*"])
    assert names[0] == "embedding.weight"
    assert len(names) == 1 + 8
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == names == matching(model.named_parameters(), ["embedding.*", "*_l0*"])
    message = r"no parameter is named 'encoder\.\*'; expected embedding.weight, .*, output.bias"
    with pytest.raises(ValueError, match=message):
        freeze(model.named_parameters(), ["output.*", "encoder.*"])
    assert dict(model.named_parameters())["output.bias"].requires_grad
    with pytest.raises(ValueError, match="leaves no parameter to train; freeze fewer"):
        freeze(model.named_parameters(), "[ro]*")
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == names


def test_layer_groups_and_their_learning_rates():
    model = Model()
    groups = layer_groups(model.named_parameters())
    assert [(len(names), names[0].rpartition(".")[2]) for names in groups] == [
        (1, "weight"), (8, "weight_ih_l0"), (8, "weight_ih_l1"), (2, "weight"),
    ]  # fmt: skip
    assert [n for names in groups for n in names] == list(dict(model.named_parameters()))
    made = discriminative_groups(model.named_parameters(), groups, 0.1)
    rates = [group["learning_rate"] for group in made]
    np.testing.assert_allclose(rates, [0.1 / 2.6**3, 0.1 / 2.6**2, 0.1 / 2.6, 0.1])
    optimizer = SGD(made, 0.1)
    assert [group["parameters"] for group in optimizer.groups] == groups
    # Patterns; what none matches is in the last group.
    patterns = [["embedding.*"], ["reader.*_l0*"]]
    made = discriminative_groups(model.named_parameters(), patterns, 0.1, factor=10)
    assert [len(group["parameters"]) for group in made] == [1, 18]
    with pytest.raises(ValueError, match="no parameter is named 'embeding'; expected"):
        discriminative_groups(model.named_parameters(), [["embeding"]], 0.1)
    with pytest.raises(ValueError, match="there are no layer groups"):
        discriminative_groups(model.named_parameters(), [], 0.1)
    with pytest.raises(
        ValueError, match="discriminative_groups: factor must be a number > 0, not 0"
    ):
        discriminative_groups(model.named_parameters(), groups, 0.1, factor=0)
