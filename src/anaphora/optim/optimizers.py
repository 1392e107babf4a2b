"""The optimizers: SGD, Adam and its relatives, RMSprop, Adagrad, Adadelta and averaged SGD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from anaphora import engine
from anaphora.optim.base import Groups, Optimizer, Parameters, fraction, not_negative, positive
from anaphora.tensor import Array, RowGradient


def _values_and_rows(gradient: Array | RowGradient) -> tuple[Array, Array | None]:
    """A gradient as the engine's updates take it."""
    if isinstance(gradient, RowGradient):
        return gradient.values, gradient.indices
    return gradient, None


class SGD(Optimizer):
    """Stochastic gradient descent; momentum of Polyak 1964, or Nesterov's (Sutskever et al. 2013).

        g = gradient + weight_decay * parameter
        v = momentum * v + g
        parameter -= learning_rate * (g + momentum * v if nesterov else v)

    Args:
        parameters: Parameters, pairs of name and Parameter, or groups; see `Optimizer`.
        learning_rate: >= 0.
        momentum: The decay rate of the velocity v, 0 <= momentum < 1.
        nesterov: Use Nesterov's momentum, which looks one step ahead.
        weight_decay: >= 0.

    Raises:
        TypeError, ValueError: as for `Optimizer`; or `nesterov` without momentum.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([1.0, 2.0])
    >>> optimizer = SGD([("weight", weight)], learning_rate=0.25)
    >>> (weight * weight).sum().backward()
    >>> optimizer.step()
    >>> weight.data
    array([0.5, 1. ], dtype=float32)
    """

    _reads_rows = True

    def __init__(
        self,
        parameters: Parameters | Groups,
        learning_rate: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        if nesterov and momentum == 0:
            raise ValueError("SGD: nesterov=True looks ahead along the momentum; give one > 0")
        super().__init__(
            parameters,
            learning_rate,
            momentum=fraction("SGD", "momentum", momentum),
            nesterov=bool(nesterov),
            weight_decay=not_negative("SGD", "weight_decay", weight_decay),
        )

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("velocity",) if options["momentum"] else ()

    def _keeps_rows(self, options: Mapping[str, Any]) -> bool:
        return not (options["momentum"] or options["weight_decay"])

    def _update(
        self,
        array: Array,
        gradient: Array | RowGradient,
        state: dict[str, Array],
        step: int,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        values, rows = _values_and_rows(gradient)
        engine.sgd_update(
            array,
            values,
            state.get("velocity"),
            learning_rate=learning_rate,
            **options,
            rows=rows,
        )


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015): steps of about the learning rate, whatever the gradient's scale.

        g = gradient + weight_decay * parameter
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        parameter -= learning_rate * m / (1 - beta_1**t) / (sqrt(v / (1 - beta_2**t)) + epsilon)

    where t counts the steps of this parameter, from 1.

    With ``lazy_rows`` a gradient that is a `RowGradient`, such as that of an embedding, moves only
    the rows that were read: of the others m, v and the parameter stay as they are, instead of
    going on along m, and weight decay reaches them no more. That is PyTorch's ``SparseAdam``,
    where t counts all steps too (and epsilon is added to ``sqrt(v)``). It is another algorithm, and
    much faster with a large vocabulary.

    Args:
        parameters: Parameters, pairs of name and Parameter, or groups; see `Optimizer`.
        learning_rate: >= 0.
        betas: The decay rates of m and v, each 0 <= beta < 1.
        epsilon: > 0.
        weight_decay: >= 0; for decoupled weight decay see `AdamW`.
        lazy_rows: Update only the rows that a `RowGradient` has.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([1.0, -300.0])
    >>> optimizer = Adam([weight], learning_rate=0.5)
    >>> (weight * weight).sum().backward()
    >>> optimizer.step()
    >>> weight.data.round(3)
    array([   0.5, -299.5], dtype=float32)
    """

    _reads_rows = True
    _decoupled = False

    def __init__(
        self,
        parameters: Parameters | Groups,
        learning_rate: float = 0.001,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        lazy_rows: bool = False,
    ) -> None:
        owner = type(self).__name__
        super().__init__(
            parameters,
            learning_rate,
            betas=_betas(owner, betas),
            epsilon=positive(owner, "epsilon", epsilon),
            weight_decay=not_negative(owner, "weight_decay", weight_decay),
            **({"lazy_rows": True} if lazy_rows else {}),  # states without it stay as they were
        )

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("first_moment", "second_moment")

    def _keeps_rows(self, options: Mapping[str, Any]) -> bool:
        return "lazy_rows" in options

    def _update(
        self,
        array: Array,
        gradient: Array | RowGradient,
        state: dict[str, Array],
        step: int,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        values, rows = _values_and_rows(gradient)
        engine.adam_update(
            array,
            values,
            state["first_moment"],
            state["second_moment"],
            step=step,
            learning_rate=learning_rate,
            betas=options["betas"],
            epsilon=options["epsilon"],
            weight_decay=options["weight_decay"],
            decoupled=self._decoupled,
            rows=rows,
        )


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Before each step of `Adam` (with ``g = gradient``),

        parameter *= 1 - learning_rate * weight_decay

    Args:
        parameters: Parameters, pairs of name and Parameter, or groups; see `Optimizer`.
        learning_rate: >= 0.
        betas: The decay rates of m and v, each 0 <= beta < 1.
        epsilon: > 0.
        weight_decay: >= 0.
        lazy_rows: As for `Adam`.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> AdamW([Parameter([1.0])], weight_decay=0.1)
    AdamW(parameters=1, learning_rate=0.001, betas=[0.9, 0.999], epsilon=1e-08, weight_decay=0.1)
    """

    _decoupled = True

    def __init__(
        self,
        parameters: Parameters | Groups,
        learning_rate: float = 0.001,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        lazy_rows: bool = False,
    ) -> None:
        super().__init__(
            parameters,
            learning_rate,
            betas=betas,
            epsilon=epsilon,
            weight_decay=weight_decay,
            lazy_rows=lazy_rows,
        )


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2016), as in PyTorch.

        g = gradient + weight_decay * parameter
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        d = sqrt(v / (1 - beta_2**t)) + epsilon
        parameter -= learning_rate * (1 - mu_t) / (1 - product of mu_1..t) * g / d
        parameter -= learning_rate * mu_{t+1} / (1 - product of mu_1..t+1) * m / d

    where t counts the steps of this parameter, from 1, and
    ``mu_t = beta_1 * (1 - 0.96 ** (t * momentum_decay) / 2)``.

    Args:
        parameters: Parameters, pairs of name and Parameter, or groups; see `Optimizer`.
        learning_rate: >= 0.
        betas: The decay rates of m and v, each 0 <= beta < 1.
        epsilon: > 0.
        weight_decay: >= 0.
        momentum_decay: How fast mu approaches beta_1, >= 0.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([1.0, -300.0])
    >>> optimizer = NAdam([weight], learning_rate=0.5)
    >>> (weight * weight).sum().backward()
    >>> optimizer.step()
    >>> weight.data.round(3)
    array([   0.472, -299.472], dtype=float32)
    """

    def __init__(
        self,
        parameters: Parameters | Groups,
        learning_rate: float = 0.002,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 0.004,
    ) -> None:
        super().__init__(
            parameters,
            learning_rate,
            betas=_betas("NAdam", betas),
            epsilon=positive("NAdam", "epsilon", epsilon),
            weight_decay=not_negative("NAdam", "weight_decay", weight_decay),
            momentum_decay=not_negative("NAdam", "momentum_decay", momentum_decay),
        )
        self._products: dict[int, float] = {}

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("first_moment", "second_moment")

    def _update(
        self,
        array: Array,
        gradient: Array,
        state: dict[str, Array],
        step: int,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        g, m, v = _moments(array, gradient, state, options)
        denominator = np.sqrt(v / (1 - options["betas"][1] ** step)) + options["epsilon"]
        product = self._product(step, options)
        mu, mu_next = _mu(step, options), _mu(step + 1, options)
        array -= learning_rate * (1 - mu) / (1 - product) * g / denominator
        array -= learning_rate * mu_next / (1 - product * mu_next) * m / denominator

    def _product(self, step: int, options: Mapping[str, Any]) -> float:
        """The product of mu from step 1 to this one, in this order, and so with the same bits."""
        if step not in self._products:
            before = self._products.get(step - 1)
            if before is None:
                before = math.prod(_mu(t, options) for t in range(1, step))
            latest = [*self._products.items()][-63:]
            self._products = dict([*latest, (step, before * _mu(step, options))])
        return self._products[step]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Optimizer.load_state_dict`."""
        super().load_state_dict(state)
        self._products = {}  # they may be of other options


def _mu(step: int, options: Mapping[str, Any]) -> float:
    decay: float = 0.96 ** (step * options["momentum_decay"])
    beta: float = options["betas"][0]
    return beta * (1 - 0.5 * decay)


class RAdam(Optimizer):
    """Adam that rectifies its variance at first, without a warm-up (Liu et al. 2020).

        g = gradient + weight_decay * parameter
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g**2
        s = 2 / (1 - beta_2) - 1,  r = s - 2 * t * beta_2**t / (1 - beta_2**t)
        f = sqrt((r - 4) * (r - 2) * s / ((s - 4) * (s - 2) * r)) * sqrt(1 - beta_2**t)
        parameter -= learning_rate * m / (1 - beta_1**t) * (f / (sqrt(v) + epsilon) if r > 5 else 1)

    where t counts the steps of this parameter, from 1.

    Args:
        parameters: Parameters, pairs of name and Parameter, or groups; see `Optimizer`.
        learning_rate: >= 0.
        betas: The decay rates of m and v, each 0 <= beta < 1.
        epsilon: > 0.
        weight_decay: >= 0.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([1.0, -300.0])
    >>> optimizer = RAdam([weight], learning_rate=0.5)
    >>> (weight * weight).sum().backward()
    >>> optimizer.step()  # the first steps are those of momentum
    >>> weight.data
    array([0., 0.], dtype=float32)
    """

    def __init__(
        self,
        parameters: Parameters | Groups,
        learning_rate: float = 0.001,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters,
            learning_rate,
            betas=_betas("RAdam", betas),
            epsilon=positive("RAdam", "epsilon", epsilon),
            weight_decay=not_negative("RAdam", "weight_decay", weight_decay),
        )

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("first_moment", "second_moment")

    def _update(
        self,
        array: Array,
        gradient: Array,
        state: dict[str, Array],
        step: int,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        _, m, v = _moments(array, gradient, state, options)
        beta_1, beta_2 = options["betas"]
        s = 2 / (1 - beta_2) - 1
        r = s - 2 * step * beta_2**step / (1 - beta_2**step)
        change = m * (learning_rate / (1 - beta_1**step))
        if r > 5:
            f = math.sqrt((r - 4) * (r - 2) * s / ((s - 4) * (s - 2) * r) * (1 - beta_2**step))
            change *= f / (np.sqrt(v) + options["epsilon"])
        array -= change


def _betas(owner: str, betas: tuple[float, float]) -> list[float]:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"{owner}: betas are two numbers, not {betas!r}")
    return [fraction(owner, "each of betas", beta) for beta in betas]


def _decayed(array: Array, gradient: Array, options: Mapping[str, Any]) -> Array:
    """The gradient with weight decay."""
    return gradient + options["weight_decay"] * array if options["weight_decay"] else gradient


def _moments(
    array: Array, gradient: Array, state: dict[str, Array], options: Mapping[str, Any]
) -> tuple[Array, Array, Array]:
    """The gradient with weight decay, and the two moments of Adam, which it updates."""
    g = _decayed(array, gradient, options)
    for name, beta, value in zip(
        ("first_moment", "second_moment"), options["betas"], (g, g * g), strict=True
    ):
        state[name] *= beta
        state[name] += (1 - beta) * value
    return g, state["first_moment"], state["second_moment"]


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012): steps in the units of the parameter, from averages of squares.

        g = gradient + weight_decay * parameter
        s = rho * s + (1 - rho) * g**2
        d = sqrt(u + epsilon) / sqrt(s + epsilon) * g
        u = rho * u + (1 - rho) * d**2
        parameter -= learning_rate * d

    Args:
        parameters: Parameters, pairs of name and Parameter, or groups; see `Optimizer`.
        learning_rate: >= 0.
        rho: The share of the averages s and u that a step keeps, 0 <= rho < 1.
        epsilon: > 0.
        weight_decay: >= 0.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([1.0, -300.0])
    >>> optimizer = Adadelta([weight], rho=0.75, epsilon=0.0625)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> weight.data.round(3)
    array([   0.553, -300.447], dtype=float32)
    """

    def __init__(
        self,
        parameters: Parameters | Groups,
        learning_rate: float = 1.0,
        *,
        rho: float = 0.9,
        epsilon: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters,
            learning_rate,
            rho=fraction("Adadelta", "rho", rho),
            epsilon=positive("Adadelta", "epsilon", epsilon),
            weight_decay=not_negative("Adadelta", "weight_decay", weight_decay),
        )

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("square_average", "change_average")

    def _update(
        self,
        array: Array,
        gradient: Array,
        state: dict[str, Array],
        step: int,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        rho, epsilon = options["rho"], options["epsilon"]
        g = _decayed(array, gradient, options)
        squares, changes = state["square_average"], state["change_average"]
        squares *= rho
        squares += (1 - rho) * g * g
        change = np.sqrt(changes + epsilon) / np.sqrt(squares + epsilon) * g
        changes *= rho
        changes += (1 - rho) * change * change
        array -= learning_rate * change


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012; centred: Graves 2013).

        g = gradient + weight_decay * parameter
        s = alpha * s + (1 - alpha) * g**2
        a = alpha * a + (1 - alpha) * g            if centered, else a = 0
        v = momentum * v + g / (sqrt(s - a**2) + epsilon)
        parameter -= learning_rate * v

    Args:
        parameters: Parameters, pairs of name and Parameter, or groups; see `Optimizer`.
        learning_rate: >= 0.
        alpha: The share of the averages s and a that a step keeps, 0 <= alpha < 1.
        epsilon: > 0.
        momentum: The share of the velocity v that a step keeps, 0 <= momentum < 1.
        centered: Divide by the standard deviation, not by the root mean square.
        weight_decay: >= 0.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([4.0, -4.0])
    >>> optimizer = RMSprop([weight], learning_rate=0.125, alpha=0.75)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> weight.data
    array([ 3.75, -4.25], dtype=float32)
    """

    _reads_rows = True

    def __init__(
        self,
        parameters: Parameters | Groups,
        learning_rate: float = 0.01,
        *,
        alpha: float = 0.99,
        epsilon: float = 1e-8,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters,
            learning_rate,
            alpha=fraction("RMSprop", "alpha", alpha),
            epsilon=positive("RMSprop", "epsilon", epsilon),
            momentum=fraction("RMSprop", "momentum", momentum),
            centered=bool(centered),
            weight_decay=not_negative("RMSprop", "weight_decay", weight_decay),
        )

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        parts = {
            "square_average": True,
            "gradient_average": options["centered"],
            "velocity": options["momentum"] > 0,
        }
        return tuple(part for part, kept in parts.items() if kept)

    def _update(
        self,
        array: Array,
        gradient: Array | RowGradient,
        state: dict[str, Array],
        step: int,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        values, rows = _values_and_rows(gradient)
        engine.rmsprop_update(
            array,
            values,
            state["square_average"],
            state.get("gradient_average"),
            state.get("velocity"),
            learning_rate=learning_rate,
            alpha=options["alpha"],
            epsilon=options["epsilon"],
            momentum=options["momentum"],
            weight_decay=options["weight_decay"],
            rows=rows,
        )


class Adagrad(Optimizer):
    """Adagrad (Duchi et al. 2011): rare words take larger steps than frequent ones.

        g = gradient + weight_decay * parameter
        s += g**2
        parameter -= learning_rate * g / (sqrt(s) + epsilon)

    Args:
        parameters: Parameters, pairs of name and Parameter, or groups; see `Optimizer`.
        learning_rate: >= 0.
        epsilon: > 0.
        weight_decay: >= 0.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([1.0, -300.0])
    >>> optimizer = Adagrad([weight], learning_rate=0.5)
    >>> (weight * weight).sum().backward()
    >>> optimizer.step()
    >>> weight.data
    array([   0.5, -299.5], dtype=float32)
    """

    _reads_rows = True

    def __init__(
        self,
        parameters: Parameters | Groups,
        learning_rate: float = 0.01,
        *,
        epsilon: float = 1e-10,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters,
            learning_rate,
            epsilon=positive("Adagrad", "epsilon", epsilon),
            weight_decay=not_negative("Adagrad", "weight_decay", weight_decay),
        )

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("square_sum",)

    def _keeps_rows(self, options: Mapping[str, Any]) -> bool:
        return not options["weight_decay"]

    def _update(
        self,
        array: Array,
        gradient: Array | RowGradient,
        state: dict[str, Array],
        step: int,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        values, rows = _values_and_rows(gradient)
        engine.adagrad_update(
            array,
            values,
            state["square_sum"],
            learning_rate=learning_rate,
            **options,
            rows=rows,
        )


class ASGD(Optimizer):
    """Averaged SGD (Polyak & Juditsky 1992) as AWD-LSTM uses it (Merity et al. 2018).

    It is plain `SGD` until `start_averaging`. From then on it also keeps the mean of the values
    that each parameter had after each step; `averaged` puts the means into the parameters.
    `NonMonotonicTrigger` starts the averaging when the validation loss stops falling.

    Started after n steps it is PyTorch's ``ASGD(lambd=0, t0=n - 1)``.

    Args:
        parameters: Parameters, pairs of name and Parameter, or groups; see `Optimizer`.
        learning_rate: >= 0.
        weight_decay: >= 0.

    Raises:
        TypeError, ValueError: as for `Optimizer`.

    >>> from anaphora.tensor import Parameter
    >>> weight = Parameter([8.0])
    >>> optimizer = ASGD([weight], learning_rate=1.0)
    >>> optimizer.start_averaging()
    >>> for _ in range(3):  # the weight becomes 7, 6, 5
    ...     optimizer.zero_grad()
    ...     weight.sum().backward()
    ...     optimizer.step()
    >>> with optimizer.averaged():
    ...     print(weight.data)
    [6.]
    >>> print(weight.data)
    [5.]
    """

    _reads_rows = True

    def __init__(
        self, parameters: Parameters | Groups, learning_rate: float, *, weight_decay: float = 0.0
    ) -> None:
        super().__init__(
            parameters,
            learning_rate,
            weight_decay=not_negative("ASGD", "weight_decay", weight_decay),
        )

    def _parts(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("average",)

    def _keeps_rows(self, options: Mapping[str, Any]) -> bool:
        return not options["weight_decay"]

    def _update(
        self,
        array: Array,
        gradient: Array | RowGradient,
        state: dict[str, Array],
        step: int,
        learning_rate: float,
        options: Mapping[str, Any],
    ) -> None:
        values, rows = _values_and_rows(gradient)
        engine.sgd_update(
            array,
            values,
            None,
            learning_rate=learning_rate,
            momentum=0.0,
            nesterov=False,
            weight_decay=options["weight_decay"],
            rows=rows,
        )

    def state_dict(self) -> dict[str, Any]:
        """As `Optimizer.state_dict`, with "averaged_steps" None before `start_averaging`."""
        return {"averaged_steps": None, **super().state_dict()}
