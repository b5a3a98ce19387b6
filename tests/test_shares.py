"""Slots of a fleet's pace: each has one owner, whoever hears of it and whenever."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.fleet.slots import AHEAD, Clock, Slots, Wheel, tolerance

NAMES = ("a", "b", "c", "d")
weights = st.dictionaries(st.sampled_from(NAMES), st.floats(0.1, 100), max_size=4)
steps = st.lists(st.tuples(st.floats(0.01, 1.5), weights, st.integers(0, 15)), max_size=30)


@given(rate=st.floats(0.5, 500), start=st.floats(0, 1e6), course=steps)
def test_no_slot_is_used_twice_whatever_messages_are_lost(
    rate: float, start: float, course: list[tuple[float, dict[str, float], int]]
) -> None:
    wheel, now = Wheel(rate, start), start
    slots = {name: Slots() for name in NAMES}
    used: list[float] = []
    for step, shares, heard in course:
        now += step
        wheel.turn(now, shares)
        for place, name in enumerate(NAMES):
            if heard >> place & 1 and name in wheel.workers:
                slots[name].learn(rate, wheel.runs, wheel.workers.index(name))
            while (moment := slots[name].take(now)) is not None:
                used.append(moment)
    assert len(used) == len({round(moment * rate) for moment in used})


@given(rate=st.floats(1, 500), late=st.floats(0, 1))
def test_latest_use_of_every_slot_stays_within_the_bound(rate: float, late: float) -> None:
    """The worst case: one slot is used as late as it may be, the next ones on time."""
    wheel = Wheel(rate, 0)
    wheel.turn(2, {"a": 1})
    slots = Slots()
    slots.learn(rate, wheel.runs, 0)
    moments = []
    while (moment := slots.take(0)) is not None:
        moments.append(moment)
    moved = [moments[0] + late * tolerance(rate), *moments[1:]]
    worst = max(sum(begin <= at < begin + 1 for at in moved) for begin in moved)
    assert worst <= max(1.02 * rate + 1, math.ceil(rate) + 1)


def test_every_slot_is_given_out_and_by_weight() -> None:
    wheel = Wheel(100, 0)
    for moment in range(1, 11):
        wheel.turn(moment, {"a": 3, "b": 1})
    seen = Counter(owner for _, *owners in wheel.runs for owner in owners)
    assert seen[wheel.workers.index("a")] == pytest.approx(3 * seen[wheel.workers.index("b")], 0.02)
    assert -1 not in seen


def test_wheel_gives_out_what_the_service_lets_through() -> None:
    """At 100 a second against 40: a report every half second of calls and refusals."""
    wheel = Wheel(100, 0)
    shares = []
    for beat in range(1, 120):
        calls = round(50 * wheel.share)
        wheel.heard(beat / 2, calls, max(0, calls - 20))
        shares.append(wheel.share)
    assert 0.3 <= sum(shares[40:]) / len(shares[40:]) <= 0.5


def test_wheel_takes_refusals_at_random_for_weather() -> None:
    wheel = Wheel(100, 0)
    shares = []
    for beat in range(1, 240):
        calls = round(50 * wheel.share)
        wheel.heard(beat / 2, calls, calls // 10)
        shares.append(wheel.share)
    assert sum(shares) / len(shares) >= 0.85
    assert shares[-1] == 1.0


def test_slowed_wheel_leaves_slots_to_nobody() -> None:
    wheel = Wheel(100, 0)
    wheel.rule.pace = 50
    wheel.turn(1, {"a": 1})
    owners = Counter(wheel.runs[-1][1:])
    assert owners[0] == pytest.approx(owners[-1], abs=1)


def test_slot_that_is_over_is_not_used() -> None:
    slots = Slots()
    slots.learn(10, [[0, 0, 0, 0]], 0)
    assert slots.take(0.17) == 0.2
    assert slots.take(0.3) is None


def test_slots_are_known_ahead_so_that_a_late_message_costs_nothing() -> None:
    wheel, slots = Wheel(10, 0), Slots()
    wheel.turn(1, {"a": 1})
    slots.learn(10, wheel.runs, 0)
    moments = [slots.take(1) for _ in range(20)]
    assert max(moment for moment in moments if moment is not None) > 1 + AHEAD - 0.2


def test_clock_believes_the_fastest_round_trip() -> None:
    clock = Clock()
    assert Clock().ahead is None
    clock.learn(0, 110, 110, 20)  # 20 s there and back: about 100 ahead
    assert clock.ahead == 100
    clock.learn(30, 130.5, 130.5, 31)  # 1 s
    assert clock.ahead == 100
    clock.learn(40, 145, 145, 41)  # as fast, and says otherwise: the smaller one stays
    assert clock.ahead == 100
    clock.learn(50, 150.2, 150.2, 50.2)  # 0.2 s
    assert clock.ahead == pytest.approx(100.1)
