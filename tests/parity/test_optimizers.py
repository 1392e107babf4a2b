"""Optimisers, clipping and the plateau schedule against PyTorch's."""

import numpy as np
import pytest

from anaphora import ops, optim
from anaphora.tensor import Parameter, RowGradient

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: peers)")

SHAPES = {"scalar": (), "bias": (5,), "weight": (4, 3), "three.axes": (2, 3, 4)}

# ours, PyTorch's, our options, and its options where they have other names
CASES = [
    ("SGD", "SGD", {}, {}),
    ("SGD", "SGD", {"weight_decay": 0.1}, {}),
    ("SGD", "SGD", {"momentum": 0.9}, {}),
    ("SGD", "SGD", {"momentum": 0.9, "weight_decay": 0.1}, {}),
    ("SGD", "SGD", {"momentum": 0.8, "nesterov": True}, {}),
    ("SGD", "SGD", {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1}, {}),
    ("Adam", "Adam", {}, {}),
    ("Adam", "Adam", {"betas": (0.5, 0.7)}, {}),
    ("Adam", "Adam", {"epsilon": 0.1, "weight_decay": 0.3}, {}),
    ("AdamW", "AdamW", {}, {}),
    ("AdamW", "AdamW", {"betas": (0.5, 0.7), "epsilon": 0.1, "weight_decay": 0.3}, {}),
    ("RMSprop", "RMSprop", {}, {}),
    ("RMSprop", "RMSprop", {"alpha": 0.6, "epsilon": 0.1, "weight_decay": 0.3}, {}),
    ("RMSprop", "RMSprop", {"momentum": 0.7}, {}),
    ("RMSprop", "RMSprop", {"alpha": 0.6, "epsilon": 0.01, "centered": True}, {}),
    ("RMSprop", "RMSprop", {"alpha": 0.6, "epsilon": 0.01, "centered": True, "momentum": 0.7}, {}),
    ("NAdam", "NAdam", {}, {}),
    ("NAdam", "NAdam", {"betas": (0.5, 0.7), "epsilon": 0.1, "weight_decay": 0.3}, {}),
    ("NAdam", "NAdam", {"momentum_decay": 0.3}, {}),
    ("RAdam", "RAdam", {}, {}),
    ("RAdam", "RAdam", {"betas": (0.5, 0.7), "epsilon": 0.1, "weight_decay": 0.3}, {}),
    ("RAdam", "RAdam", {"betas": (0.9, 0.98)}, {}),
    ("Adadelta", "Adadelta", {}, {}),
    ("Adadelta", "Adadelta", {"rho": 0.6, "epsilon": 0.1, "weight_decay": 0.3}, {}),
    ("Adagrad", "Adagrad", {}, {}),
    ("Adagrad", "Adagrad", {"epsilon": 0.1, "weight_decay": 0.3}, {}),
    ("ASGD", "ASGD", {}, {"lambd": 0, "t0": 3}),
    ("ASGD", "ASGD", {"weight_decay": 0.1}, {"lambd": 0, "t0": 3}),
]


def pairs(dtype):
    """Parameters of ours and of PyTorch by name, and gradients for ten steps."""
    generator = np.random.default_rng(0)
    ours = {
        name: Parameter(generator.standard_normal(shape).astype(dtype))
        for name, shape in SHAPES.items()
    }
    theirs = {name: torch.nn.Parameter(torch.tensor(p.data)) for name, p in ours.items()}
    steps = [
        {name: generator.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}
        for _ in range(10)
    ]
    return ours, theirs, steps


def assert_close(ours, theirs, dtype, tolerance=None):
    tolerance = tolerance or (1e-13 if dtype == np.float64 else 3e-6)
    for name, parameter in ours.items():
        assert parameter.dtype == dtype
        np.testing.assert_allclose(
            parameter.data,
            theirs[name].detach().numpy(),
            rtol=tolerance,
            atol=tolerance,
            err_msg=name,
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("ours", "theirs", "options", "their_options"), CASES, ids=str)
def test_ten_steps(ours, theirs, options, their_options, dtype):
    our_parameters, their_parameters, steps = pairs(dtype)
    our_optimizer = getattr(optim, ours)(our_parameters.items(), 0.0625, **options)
    renamed = {"eps" if key == "epsilon" else key: value for key, value in options.items()}
    their_optimizer = getattr(torch.optim, theirs)(
        their_parameters.values(), 0.0625, **renamed, **their_options
    )
    for number, gradients in enumerate(steps):
        if ours == "ASGD" and number == 4:
            our_optimizer.start_averaging()  # PyTorch's t0 is 3
        for name, gradient in gradients.items():
            if number == 5 and name == "bias" and ours != "ASGD":  # skipped, in both
                our_parameters[name].grad = their_parameters[name].grad = None
                continue
            our_parameters[name].grad = gradient.copy()
            their_parameters[name].grad = torch.tensor(gradient)
        our_optimizer.step()
        their_optimizer.step()
        # PyTorch keeps NAdam's product in float32.
        tolerance = 1e-7 if (ours, dtype) == ("NAdam", np.float64) else None
        assert_close(our_parameters, their_parameters, dtype, tolerance)
    if ours == "ASGD":
        averages = {name: their_optimizer.state[p]["ax"] for name, p in their_parameters.items()}
        with our_optimizer.averaged():
            # PyTorch keeps the share of each value, 1/3 for one, in float32.
            assert_close(our_parameters, averages, dtype, tolerance=3e-6)


def test_the_defaults_are_those_of_pytorch():
    names = {"learning_rate": "lr", "epsilon": "eps"}
    for name in ("Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta"):
        ours = getattr(optim, name)([Parameter([1.0])]).state_dict()
        theirs = getattr(torch.optim, name)([torch.zeros(1)]).defaults
        for option, value in {"learning_rate": ours["learning_rate"], **ours["options"]}.items():
            expected = theirs[names.get(option, option)]
            assert value == (list(expected) if isinstance(expected, tuple) else expected), option


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("max_norm", [0.5, 1000.0])
def test_clipping(max_norm, dtype):
    ours, theirs, steps = pairs(dtype)
    for name, gradient in steps[0].items():
        ours[name].grad = gradient.copy()
        theirs[name].grad = torch.tensor(gradient)
    norm = optim.clip_grad_norm(ours.values(), max_norm)
    their_norm = torch.nn.utils.clip_grad_norm_(theirs.values(), max_norm)
    np.testing.assert_allclose(norm, their_norm.item(), rtol=1e-6)
    for name, parameter in ours.items():
        np.testing.assert_allclose(parameter.grad, theirs[name].grad.numpy(), rtol=2e-6)
    optim.clip_grad_value(ours.values(), 0.05)
    torch.nn.utils.clip_grad_value_(theirs.values(), 0.05)
    for name, parameter in ours.items():
        np.testing.assert_allclose(parameter.grad, theirs[name].grad.numpy(), rtol=2e-6)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_rows_equal_sparse_gradients(name):
    table = np.random.default_rng(0).standard_normal((6, 3))
    ours, theirs = (
        Parameter(table),
        torch.nn.Embedding(6, 3, sparse=True, _weight=torch.tensor(table)),
    )
    our_optimizer = getattr(optim, name)([ours], 0.5)
    their_optimizer = getattr(torch.optim, name)(theirs.parameters(), 0.5)
    for ids in ([1, 3, 1], [5], [3, 5, 0]):
        values = np.random.default_rng(len(ids)).standard_normal((len(ids), 3))
        ours.grad = RowGradient(np.array(ids), values, (6, 3))
        their_optimizer.zero_grad()
        (theirs(torch.tensor(ids)) * torch.tensor(values)).sum().backward()
        our_optimizer.step()
        their_optimizer.step()
    np.testing.assert_allclose(ours.data, theirs.weight.detach().numpy(), rtol=1e-13)


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_the_plateau_schedule(patience):
    ours = optim.SGD([Parameter([1.0])], 8.0)
    theirs = torch.optim.SGD([torch.zeros(1)], 8.0)
    options = {"factor": 0.5, "patience": patience}
    our_schedule = optim.ReduceOnPlateau(ours, minimum=0.5, **options)
    their_schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        theirs, threshold=0, min_lr=0.5, **options
    )
    for loss in np.random.default_rng(0).standard_normal(40):
        our_schedule.on_evaluation(loss)
        their_schedule.step(loss)
        assert ours.learning_rate == theirs.param_groups[0]["lr"]


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_groups_with_a_cosine_schedule(name):
    ours, theirs, steps = pairs(np.float64)
    numbers = [{"lr": 0.05}, {"weight_decay": 0.3}, {"lr": 0.01, "weight_decay": 0.0}]
    parts = [["scalar", "bias"], ["weight"], ["three.axes"]]

    def groups(parameters):
        return [
            {"params": [parameters[key] for key in keys], **more}
            for keys, more in zip(parts, numbers, strict=True)
        ]

    optimizer = getattr(optim, name)(groups(ours), 0.02, weight_decay=0.1)
    schedule = optim.Cosine(optimizer, total_steps=12)
    their_optimizer = getattr(torch.optim, name)(groups(theirs), lr=0.02, weight_decay=0.1)
    their_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(their_optimizer, T_max=12)
    for number, gradients in enumerate(steps):
        schedule.on_step(number)
        for group, other in zip(optimizer.groups, their_optimizer.param_groups, strict=True):
            np.testing.assert_allclose(group["learning_rate"], other["lr"], rtol=1e-12)
            assert group["weight_decay"] == other["weight_decay"]
        for key, gradient in gradients.items():
            ours[key].grad, theirs[key].grad = gradient, torch.tensor(gradient)
        optimizer.step()
        their_optimizer.step()
        their_schedule.step()
    assert_close(ours, theirs, np.float64, 1e-11)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lazy_rows_are_those_of_sparse_adam(dtype):
    """But for epsilon, which SparseAdam adds before the correction of the root."""
    table = np.random.default_rng(0).standard_normal((6, 3)).astype(dtype)
    theirs = torch.nn.Embedding(6, 3, sparse=True, _weight=torch.tensor(table))
    ours, numbers = Parameter(table), {"betas": (0.7, 0.9)}
    our_optimizer = optim.Adam([ours], 0.05, epsilon=1e-16, lazy_rows=True, **numbers)
    their_optimizer = torch.optim.SparseAdam(theirs.parameters(), 0.05, eps=1e-16, **numbers)
    for ids in ([1, 3, 1], [5], [3, 5, 0], [1], [0, 0, 3]):
        values = np.random.default_rng(len(ids)).standard_normal((len(ids), 3)).astype(dtype)
        ours.grad = RowGradient(np.array(ids), values, (6, 3))
        their_optimizer.zero_grad()
        (theirs(torch.tensor(ids)) * torch.tensor(values)).sum().backward()
        our_optimizer.step()
        their_optimizer.step()
        expected = theirs.weight.detach().numpy()
        np.testing.assert_allclose(ours.data, expected, rtol={4: 1e-5, 8: 1e-12}[table.itemsize])


QUADRATICS = [
    ("NAdam", {"weight_decay": 0.1}),
    ("RAdam", {"weight_decay": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("LBFGS", {"max_iterations": 4}),
    ("LBFGS", {"max_iterations": 3, "history_size": 2}),
    ("LBFGS", {"max_iterations": 3, "history_size": 1}),
    ("LBFGS", {}),
]


@pytest.mark.parametrize(("name", "options"), QUADRATICS, ids=str)
def test_twenty_steps_on_a_quadratic(name, options):
    rng = np.random.default_rng(7)
    root = rng.normal(size=(6, 6))
    matrix, vector = root @ root.T + np.eye(6), rng.normal(size=6)
    starts = [rng.normal(size=(2, 2)), rng.normal(size=2)]
    ours = [Parameter(a) for a in starts]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in starts]
    names = {"max_iterations": "max_iter"}
    rate = 0.3 if name == "LBFGS" else 0.05
    our_optimizer = getattr(optim, name)(ours, rate, **options)
    renamed = {names.get(k, k): v for k, v in options.items()}
    renamed |= {"max_eval": 1000} if name == "LBFGS" else {}  # which ours does not limit
    their_optimizer = getattr(torch.optim, name)(theirs, rate, **renamed)

    def our_closure():
        our_optimizer.zero_grad()
        x = ops.concatenate([p.reshape(-1) for p in ours])
        loss = (x * (matrix @ x)).sum() * 0.5 - (x * vector).sum()
        loss.backward()
        return loss

    def their_closure():
        their_optimizer.zero_grad()
        x = torch.cat([p.reshape(-1) for p in theirs])
        loss = x @ torch.tensor(matrix) @ x / 2 - x @ torch.tensor(vector)
        loss.backward()
        return loss

    for number in range(20):
        if name == "LBFGS":
            if number == 7:  # goes on from its state
                state = our_optimizer.state_dict()
                our_optimizer = optim.LBFGS(ours, 1.0, **options)
                our_optimizer.load_state_dict(state)
            loss, other = our_optimizer.step(our_closure), their_optimizer.step(their_closure)
            np.testing.assert_allclose(loss.item(), other.item(), rtol=1e-8)
        else:
            our_closure()
            their_closure()
            our_optimizer.step()
            their_optimizer.step()
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.data, other.detach().numpy(), rtol=1e-7, atol=1e-9)


VALLEYS = {
    "rosenbrock": lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
    "himmelblau": lambda x, y: (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2,
    "flat at first": lambda x, y: (x**4 + y**4) / 100 + (x * y - 1) ** 2 / 50,
    "steep": lambda x, y: (20 * x) ** 2 + (y - 3) ** 2 + x**4,
}


@pytest.mark.parametrize("rate", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("name", VALLEYS)
def test_line_search_step_by_step(name, rate):
    """The length of each iteration, from many starts: both evaluate the same points."""
    for start in np.random.default_rng(5).normal(size=(6, 2)) * 2:
        ours, theirs = Parameter(start), torch.nn.Parameter(torch.tensor(start))
        options = {"line_search_fn": "strong_wolfe", "history_size": 5}
        our_optimizer = optim.LBFGS([ours], rate, max_iterations=2, **options)
        their_optimizer = torch.optim.LBFGS([theirs], rate, max_iter=2, max_eval=27, **options)
        seen, expected = [], []

        def our_closure(ours=ours, optimizer=our_optimizer, seen=seen):
            optimizer.zero_grad()
            loss = VALLEYS[name](ours[0], ours[1])
            loss.backward()
            seen.append([*ours.data, loss.item()])
            return loss

        def their_closure(theirs=theirs, optimizer=their_optimizer, seen=expected):
            optimizer.zero_grad()
            loss = VALLEYS[name](theirs[0], theirs[1])
            loss.backward()
            seen.append([*theirs.tolist(), loss.item()])
            return loss

        for _ in range(4):
            our_optimizer.step(our_closure)
            their_optimizer.step(their_closure)
            np.testing.assert_allclose(ours.data, theirs.tolist(), rtol=1e-5, atol=1e-8)
            assert len(seen) == len(expected)
        np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-7)


def test_schedules_of_steps_and_of_one_cycle():
    def rates(make_ours, make_theirs, name, calls):
        optimizer = optim.SGD([Parameter([1.0])], 0.8)
        theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.8)
        schedule, other = make_ours(optimizer), make_theirs(theirs)
        for number in range(calls):
            getattr(schedule, name)(number)
            np.testing.assert_allclose(
                optimizer.learning_rate, theirs.param_groups[0]["lr"], rtol=1e-12
            )
            theirs.step()
            if number < calls - 1:
                other.step()

    schedulers = torch.optim.lr_scheduler
    rates(
        lambda o: optim.StepDecay(o, epochs=3, decay=0.4),
        lambda o: schedulers.StepLR(o, 3, 0.4),
        "on_epoch",
        10,
    )
    for options in ({}, {"pct_start": 0.45, "div_factor": 4.0, "final_div_factor": 100.0}):
        rates(
            lambda o, options=options: optim.OneCycle(o, total_steps=23, **options),
            lambda o, options=options: schedulers.OneCycleLR(o, 0.8, total_steps=23, **options),
            "on_step",
            23,
        )
