"""Schedules: the exact learning rate at every step, epoch and evaluation."""

import json
import math

import numpy as np
import pytest

from anaphora.optim import (
    ASGD,
    SCHEDULES,
    SGD,
    Constant,
    Cosine,
    ExponentialDecay,
    NonMonotonicTrigger,
    OneCycle,
    ReduceOnPlateau,
    StepDecay,
    WarmUp,
)
from anaphora.tensor import Parameter


def optimizer(learning_rate=1.0, kind=SGD):
    return kind([Parameter([0.0])], learning_rate)


def rates(schedule, event, values):
    """The optimizer's learning rate after each event."""
    result = []
    for value in values:
        getattr(schedule, event)(value)
        assert schedule.learning_rate == schedule.optimizer.learning_rate
        result.append(schedule.optimizer.learning_rate)
    return result


def test_constant_stays():
    schedule = Constant(optimizer(0.3))
    for event in ("on_step", "on_epoch", "on_evaluation"):
        assert rates(schedule, event, range(3)) == [0.3] * 3


def test_the_schedule_of_zaremba_small():
    # 13 epochs; TensorFlow's tutorial has it as lr_decay ** max(i + 1 - max_epoch, 0), max_epoch 4.
    assert rates(ExponentialDecay(optimizer()), "on_epoch", range(13)) == [
        *(1, 1, 1, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256, 1 / 512)
    ]


def test_exponential_decay_in_general():
    schedule = ExponentialDecay(optimizer(20.0), decay=1 / 1.15, constant_epochs=14)
    values = rates(schedule, "on_epoch", range(55))
    assert values[:14] == [20.0] * 14
    np.testing.assert_allclose(values[14:], [20 / 1.15**k for k in range(1, 42)], rtol=1e-14)
    assert rates(ExponentialDecay(optimizer(), constant_epochs=0), "on_epoch", range(3)) == [
        *(0.5, 0.25, 0.125)
    ]


def test_an_epoch_may_be_begun_again():
    schedule = ExponentialDecay(optimizer())
    assert rates(schedule, "on_epoch", [5, 5, 2, 4]) == [0.25, 0.25, 1.0, 0.5]


def test_plateau_counts_evaluations_without_a_new_best():
    schedule = ReduceOnPlateau(optimizer(8.0), patience=1, minimum=1.5)
    losses = [5, 4, 4, 3.9, 4, 4, 3.9, 4, 3.8, 9, 9, 9, 9]
    assert rates(schedule, "on_evaluation", losses) == [8] * 5 + [4, 4, 2, 2, 2, 1.5, 1.5, 1.5]


def test_plateau_without_patience_reduces_at_once():
    schedule = ReduceOnPlateau(optimizer(8.0), factor=0.25)
    assert rates(schedule, "on_evaluation", [5, 5, 4, 4.5]) == [8, 2, 2, 0.5]


def test_plateau_takes_nan_and_infinity_for_no_improvement():
    schedule = ReduceOnPlateau(optimizer(8.0))
    assert rates(schedule, "on_evaluation", [math.inf, math.nan, 5.0, math.nan]) == [4, 2, 2, 1]
    json.dumps(schedule.state_dict(), allow_nan=False)


def test_plateau_never_raises_the_learning_rate():
    schedule = ReduceOnPlateau(optimizer(1.0), minimum=3.0)
    assert rates(schedule, "on_evaluation", [5, 5]) == [1, 1]


def test_cosine():
    schedule = Cosine(optimizer(3.0), total_steps=6, minimum=1.0)
    root = math.sqrt(3) / 2
    expected = [3, 2 + root, 2.5, 2, 1.5, 2 - root, 1, 1, 1]
    np.testing.assert_allclose(rates(schedule, "on_step", range(9)), expected, rtol=1e-15)


def test_schedules_begin_at_a_given_step():
    cosine = Cosine(optimizer(), total_steps=14, first_step=10)
    decay = ExponentialDecay(optimizer(), decay=0.5, constant_epochs=1, first_epoch=3)
    warm = WarmUp(Constant(optimizer()), steps=2, first_step=10)
    start, root = cosine.learning_rate, math.sqrt(2)
    for step, share in enumerate([1, (2 + root) / 4, 0.5, (2 - root) / 4, 0, 0], 10):
        cosine.on_step(step)
        assert cosine.learning_rate == pytest.approx(start * share, abs=1e-12)
    for epoch, factor in [(3, 1), (4, 0.5), (5, 0.25)]:
        decay.on_epoch(epoch)
        assert decay.learning_rate == start * factor
    for step, factor in [(10, 0.5), (11, 1), (12, 1)]:
        warm.on_step(step)
        assert warm.learning_rate == start * factor
    with pytest.raises(ValueError, match="Cosine: total_steps must be an integer >= 11, not 10"):
        Cosine(optimizer(), total_steps=10, first_step=10)


def test_warm_up_multiplies_any_other_schedule():
    schedule = WarmUp(Constant(optimizer(2.0)), steps=4)
    assert schedule.optimizer.learning_rate == 0.5
    assert rates(schedule, "on_step", range(6)) == [0.5, 1, 1.5, 2, 2, 2]

    schedule = WarmUp(ExponentialDecay(optimizer(2.0), constant_epochs=1), steps=4)
    assert rates(schedule, "on_epoch", [0]) == [0.5]
    assert rates(schedule, "on_step", [0, 1]) == [0.5, 1]
    assert rates(schedule, "on_epoch", [1]) == [0.5]
    assert rates(schedule, "on_step", [2, 3, 4]) == [0.75, 1, 1]

    schedule = WarmUp(ReduceOnPlateau(optimizer(2.0)), steps=2)
    assert rates(schedule, "on_step", [0]) == [1]
    assert rates(schedule, "on_evaluation", [3, 3]) == [1, 0.5]
    assert rates(schedule, "on_step", [1, 2]) == [1, 1]

    alone = Cosine(optimizer(2.0), total_steps=10)
    schedule = WarmUp(Cosine(optimizer(2.0), total_steps=10), steps=4)
    expected = np.multiply(rates(alone, "on_step", range(12)), [0.25, 0.5, 0.75] + [1] * 9)
    assert rates(schedule, "on_step", range(12)) == expected.tolist()


def test_the_trigger_looks_at_the_smallest_loss_of_long_before():
    # AWD-LSTM: len(best) > n and loss > min(best[:-n]), the loss itself not yet among the best.
    averaged = optimizer(30.0, ASGD)
    trigger = NonMonotonicTrigger(averaged, interval=3)
    seen = []
    for loss in (9, 5, 7, 8, 6, math.nan, 5.5):
        trigger.on_evaluation(loss)
        seen.append(averaged.averaging)
    assert seen == [False, False, False, False, False, False, True]
    assert averaged.learning_rate == 30


def test_the_trigger_lets_falling_losses_pass():
    averaged = optimizer(30.0, ASGD)
    trigger = NonMonotonicTrigger(averaged)
    for loss in (9, 8, 8.5, 8.4, 8.3, 8.2, 8.1, 7.9, 8, 8, 8, 8, 8):
        trigger.on_evaluation(loss)
        assert not averaged.averaging
    trigger.on_evaluation(7.95)
    assert averaged.averaging


MAKERS = {
    "constant": lambda: Constant(optimizer()),
    "exponential": lambda: ExponentialDecay(optimizer(), constant_epochs=1),
    "plateau": lambda: ReduceOnPlateau(optimizer(), patience=1),
    "cosine": lambda: Cosine(optimizer(), total_steps=20, minimum=0.01),
    "step": lambda: StepDecay(optimizer(), epochs=2, decay=0.5),
    "one-cycle": lambda: OneCycle(optimizer(), total_steps=9),
    "warm-up": lambda: WarmUp(ReduceOnPlateau(optimizer(), patience=1), steps=5),
    "nonmonotonic": lambda: NonMonotonicTrigger(optimizer(kind=ASGD), interval=2),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("split", range(10))
def test_a_restored_schedule_goes_on_alike(make, split):
    def go(schedule, steps):
        result = []
        for step in steps:
            if step % 3 == 0:
                schedule.on_epoch(step // 3)
            schedule.on_step(step)
            result.append(schedule.optimizer.learning_rate)
            schedule.on_evaluation([5, 4, 4.5, 4.4, 4.2, 4.1, 3, 3.5, 4, 5][step])
        averaging = isinstance(schedule, NonMonotonicTrigger) and schedule.optimizer.averaging
        return result, averaging

    complete, averaging = go(make(), range(10))
    schedule = make()
    first, _ = go(schedule, range(split))
    state = schedule.state_dict()
    saved = json.loads(json.dumps(state, allow_nan=False))
    go(schedule, range(split, 10))
    assert state == saved, "the saved state was changed"

    restored = make()
    restored.optimizer.learning_rate = 0.125  # whatever it is, the schedule restores it
    if isinstance(restored, NonMonotonicTrigger) and split == 10 - 1 and averaging:
        restored.optimizer.start_averaging()  # the optimizer's own state has it
    restored.load_state_dict(saved)
    assert restored.state_dict() == saved
    second, averaging_too = go(restored, range(split, 10))
    assert first + second == complete
    assert averaging_too == averaging


def test_a_state_of_another_schedule_is_refused():
    state = Constant(optimizer()).state_dict()
    with pytest.raises(ValueError, match="Cosine: the state is from 'Constant'; load it into"):
        Cosine(optimizer(), total_steps=3).load_state_dict(state)
    with pytest.raises(ValueError, match="Constant: the state has no 'learning_rate'"):
        Constant(optimizer()).load_state_dict({"schedule": "Constant", "initial_learning_rate": 1})
    warm = WarmUp(Constant(optimizer()), steps=3).state_dict()
    with pytest.raises(ValueError, match="ReduceOnPlateau: the state is from 'Constant'"):
        WarmUp(ReduceOnPlateau(optimizer()), steps=3).load_state_dict(warm)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: ExponentialDecay(o, decay=0), "ExponentialDecay: decay must be > 0"),
        (lambda o: ExponentialDecay(o, decay=math.nan), "ExponentialDecay: decay must be > 0"),
        (
            lambda o: ExponentialDecay(o, constant_epochs=-1),
            "constant_epochs must be an integer >= 0",
        ),
        (
            lambda o: ReduceOnPlateau(o, factor=1),
            "ReduceOnPlateau: factor must be a number >= 0 and <",
        ),
        (lambda o: ReduceOnPlateau(o, patience=0.5), "patience must be an integer >= 0, not 0.5"),
        (lambda o: ReduceOnPlateau(o, minimum=-1), "minimum must be a finite number >= 0, not -1"),
        (lambda o: Cosine(o, total_steps=0), "Cosine: total_steps must be an integer >= 1, not 0"),
        (lambda o: StepDecay(o, epochs=0), "StepDecay: epochs must be an integer >= 1, not 0"),
        (lambda o: StepDecay(o, epochs=1, decay=0), "StepDecay: decay must be > 0 and <= 1, not 0"),
        (lambda o: OneCycle(o, total_steps=1), "OneCycle: total_steps must be an integer >= 2, no"),
        (lambda o: OneCycle(o, total_steps=9, pct_start=1), "OneCycle: pct_start must be > 0 and"),
        (lambda o: OneCycle(o, total_steps=9, div_factor=0), "OneCycle: div_factor must be fini"),
        (lambda o: WarmUp(Constant(o), steps=0), "WarmUp: steps must be an integer >= 1, not 0"),
    ],
)
def test_a_bad_number_is_reported(make, message):
    with pytest.raises(ValueError, match=message):
        make(optimizer())


def test_the_trigger_wants_asgd():
    with pytest.raises(TypeError, match="starts the averaging of ASGD, which SGD does not have"):
        NonMonotonicTrigger(optimizer())
    with pytest.raises(
        ValueError, match="NonMonotonicTrigger: interval must be an integer >= 1, not 0"
    ):
        NonMonotonicTrigger(optimizer(kind=ASGD), interval=0)


def test_the_registry_makes_each():
    assert set(SCHEDULES) == set(MAKERS) - {"warm-up", "step", "one-cycle"}
    for name, kind in SCHEDULES.items():
        assert isinstance(MAKERS[name](), kind)
