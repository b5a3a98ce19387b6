"""The rule of the pace against services in virtual time."""

from __future__ import annotations

import math
from copy import deepcopy
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.service_models import Batch, Both, Bucket, Crowd, Minute, Sliding, Weather
from gpt4batch.dialects.limits import Limits, Window
from gpt4batch.service.pace import Rule

if TYPE_CHECKING:
    import random

    from benchmarks.service_models import Model

SEEDS = (1, 2, 3, 4)
STEADY, FIRST = 0.03, 0.08
"""The most calls refused over those accepted: against a limit that is known, in a first minute."""


def limit(name: str, model: Model, rate: float, calls: int, allowed: float, **more: float) -> Any:
    """Return the parameters of a model of a steady limit, with what is allowed a second."""
    return pytest.param(model, rate, calls, allowed, more, id=name)


LIMITS = [
    limit("20, no rate", Sliding(20), 0, 2000, 20),
    limit("20, the same rate", Sliding(20), 20, 2000, 20),
    limit("20, rate 25", Sliding(20), 25, 2000, 20),
    limit("20 unnamed, rate 22", Sliding(20, None), 22, 2000, 20),
    limit("20 unnamed, no rate", Sliding(20, None), 0, 2000, 20),
    limit("100, no rate", Sliding(100), 0, 12_000, 100),
    limit("100 unnamed, no rate", Sliding(100, None), 0, 10_000, 100),
    limit("100 unnamed, rate 200", Sliding(100, None), 200, 10_000, 100),
    limit("5, rate 100", Sliding(5), 100, 1000, 5),
    # Of few calls each that is refused counts for much.
    limit("2, rate 100", Sliding(2), 100, 400, 2, first=0.13),
    limit("1, no rate", Sliding(1), 0, 300, 1, first=0.6, steady=0.07),
    limit("bucket of 50, no rate", Bucket(50, 50), 0, 6000, 50),
    limit("bucket of 50 named, rate 100", Bucket(50, 50, 1), 100, 6000, 50),
    limit("small bucket, no rate", Bucket(50, 5), 0, 6000, 50),
    limit("600 a minute, no rate", Minute(600), 0, 3000, 10),
    limit("600 a minute unnamed, no rate", Minute(600, named=False), 0, 4000, 10),
    limit("600 a minute unnamed, rate 20", Minute(600, named=False), 20, 4000, 10),
    limit("60 a minute, rate 2", Minute(60), 2, 600, 1),
    # Six refusals tell the end of a minute of 60 calls, the second time that it was no outage.
    limit(
        *("60 a minute unnamed, rate 2", Minute(60, named=False), 2, 600, 1),
        first=0.1,
        steady=0.04,
    ),
    limit(
        *("60 in any minute unnamed, rate 2", Sliding(60, None, 60), 2, 600, 1),
        first=0.1,
        steady=0.04,
    ),
    limit("600 in any minute unnamed, rate 20", Sliding(600, None, 60), 20, 6000, 10),
    limit("600 in any minute, 5 s named, rate 20", Sliding(600, 5, 60), 20, 6000, 10),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("model", "rate", "calls", "allowed", "more"), LIMITS)
def test_steady_limit_is_used_and_seldom_exceeded(
    model: Model, rate: float, calls: int, allowed: float, more: dict[str, float], seed: int
) -> None:
    seen = Batch(deepcopy(model), Rule(rate or math.inf), calls, seed=seed).run()
    assert seen.rate() >= 0.9 * allowed
    assert seen.share(0, 60) <= more.get("first", FIRST)
    assert seen.share(60) <= more.get("steady", STEADY)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("share", "least"), [(0.01, 0.96), (0.03, 0.9), (0.1, 0.9), (0.2, 0.9)])
@pytest.mark.parametrize("rate", [5, 20, 200])
def test_refusals_at_random_cost_little_but_themselves(
    rate: int, share: float, least: float, seed: int
) -> None:
    seen = Batch(Weather(share), Rule(rate), 100 * max(20, rate), seed=seed).run()
    assert seen.rate(0, seen.busy) >= least * rate * (1 - share)


@pytest.mark.parametrize("rate", [12, 100])
@pytest.mark.parametrize("after", [1.0, 5.0])
@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.2, 0.3, 0.67])
def test_refusals_at_random_that_hold_everyone_do_not_slow_what_is_between(
    share: float, after: float, rate: int
) -> None:
    useful = []
    for seed in SEEDS:
        calls = int(1200 / (1 / rate + share * after))
        seen = Batch(Weather(share, after), Rule(rate), calls, 60, seed=seed).run()
        sent = sum(at < seen.busy for at in seen.accepted + seen.refused)
        holds = sum(at < seen.busy for at in seen.refused)
        useful.append((sent / rate + after * holds) / seen.busy)
    assert median(useful) >= 0.8
    assert min(useful) >= 0.4


class FirstCall:
    """A service that refuses its first call, and then no other."""

    asked = 0

    def ask(self, now: float, live: int, chance: random.Random) -> tuple[bool, float | None]:
        self.asked += 1
        return (True, None) if self.asked > 1 else (False, 0.5)


def test_refusal_of_the_first_call_that_is_known_late_is_no_measure() -> None:
    seen = Batch(FirstCall(), Rule(12), 120, 30, (0.5, 1.5), trip=0.85).run()
    assert min(seen.paces) >= 12 / 3
    assert seen.rate() >= 5


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    ("share", "after", "allowed", "rate", "least", "over"),
    [
        (0.05, None, 100, 200, 0.9, 0.05),
        (0.1, None, 100, 200, 0.9, 0.08),
        (0.1, None, 20, 0, 0.75, 0.2),
        (0.1, 1.0, 100, 200, 0.8, 0.03),
        (0.1, 1.0, 20, 0, 0.8, 0.05),
    ],
)
def test_limit_is_found_under_refusals_at_random(
    share: float,
    after: float | None,
    allowed: int,
    rate: float,
    least: float,
    over: float,
    seed: int,
) -> None:
    model = Both(Weather(share), Sliding(allowed, after))
    seen = Batch(model, Rule(rate or math.inf), 120 * allowed, seed=seed).run()
    assert seen.rate(0, seen.busy) >= least * allowed
    assert seen.share() <= share / (1 - share) + over


@pytest.mark.parametrize("rate", [0, 100, 200])
@pytest.mark.parametrize("after", [1.0, None])
@pytest.mark.parametrize("seed", SEEDS)
def test_limit_that_moves_is_used_and_found_within_a_minute(
    after: float | None, rate: int, seed: int
) -> None:
    model = Sliding(lambda now: 30 if 60 <= now < 120 else 100, after)
    seen = Batch(model, Rule(rate or math.inf), 18_000, seed=seed).run()
    end = seen.accepted[-1]
    assert len(seen.accepted) >= 0.85 * (100 * end - 60 * 70)
    assert seen.rate(70, 120) >= 0.85 * 30
    assert seen.rate(175, 190) >= 85
    assert seen.share() <= STEADY


class Outage:
    """A service that refuses every call for a while, and none before or after."""

    def __init__(self, began: float, lasts: float, after: float | None) -> None:
        self.began, self.end, self.after = began, began + lasts, after

    def ask(self, now: float, live: int, chance: random.Random) -> tuple[bool, float | None]:
        refused = self.began <= now < self.end
        return not refused, self.after if refused else None


@pytest.mark.parametrize("rate", [0, 1, 5, 20, 100])
@pytest.mark.parametrize("began", [0, 3, 10, 60])
@pytest.mark.parametrize("lasts", [1, 3, 10, 30, 90])
@pytest.mark.parametrize("after", [None, 1.0, 5.0])
def test_outage_that_is_over_is_forgotten_within_a_minute(
    rate: int, began: float, lasts: float, after: float | None
) -> None:
    model, places = Outage(began, lasts, after), 2 * rate or 20
    usual = rate or places / 0.3
    seen = Batch(model, Rule(rate or math.inf), int(usual * (began + 120)), places).run()
    found = model.end + 60
    assert seen.rate(found, found + 30) >= 0.9 * usual
    assert len(seen.refused) <= 20 + lasts + places * (not rate)


@pytest.mark.parametrize("latency", [(0.2, 0.4), (5.0, 15.0), (40.0, 80.0)])
def test_limit_of_calls_at_a_time_lowers_the_calls_in_flight(latency: tuple[float, float]) -> None:
    rule = Rule(math.inf)
    seen = Batch(Crowd(20), rule, 600, 100, latency).run()
    assert seen.rate() >= 0.9 * 20 / (sum(latency) / 2)
    assert rule.room == pytest.approx(20, abs=2)
    assert math.isinf(rule.pace)
    assert seen.share() <= STEADY


def test_limit_is_found_before_the_first_answer() -> None:
    """A call that is not refused soon is accepted: answers of a minute slow no learning."""
    seen = Batch(Sliding(20), Rule(math.inf), 1600, 4000, (60.0, 60.0)).run()
    assert seen.rate(0, 60) >= 0.8 * 20
    assert seen.rate(60) >= 0.9 * 20
    assert seen.share(0, 60) <= FIRST


@pytest.mark.parametrize("trip", [0.02, 0.3, 0.5])
def test_refusals_that_take_long_are_not_counted_against_the_new_pace(trip: float) -> None:
    seen = Batch(Sliding(20), Rule(20), 2000, trip=trip).run()
    assert seen.rate() >= 0.9 * 20
    assert seen.share() <= 0.03


def test_rate_is_never_exceeded_whatever_is_learned() -> None:
    for model in (Weather(0.1), Sliding(20), Both(Weather(0.1), Sliding(30))):
        seen = Batch(model, Rule(25), 2000).run()
        assert max(seen.paces) <= 25


def test_small_batch_below_the_limit_is_not_slowed() -> None:
    seen = Batch(Sliding(100), Rule(20), 50).run()
    assert not seen.refused
    assert seen.accepted[-1] == pytest.approx(49 / 20, rel=0.05)


def test_ramp_rises_from_a_tenth_of_the_rate() -> None:
    seen = Batch(Weather(0), Rule(100, ramp=10), 2000).run()
    assert seen.rate(0, 1) == pytest.approx(14, abs=4)
    assert seen.rate(4.5, 5.5) == pytest.approx(55, abs=4)
    assert seen.rate(11, 12) == pytest.approx(100, abs=3)


def test_ramp_without_a_rate_begins_with_few_calls() -> None:
    seen = Batch(Weather(0), Rule(math.inf, ramp=10), 100).run()
    assert seen.rate(0, 1) <= 5


def test_headers_lower_the_pace_before_a_refusal_and_never_raise_it() -> None:
    rule = Rule(50)
    rule.leave(1.0)
    rule.heed(Limits(requests=(Window(600, 500, 10),)), 1.0)
    assert rule.pace == 50
    rule.heed(Limits(requests=(Window(600, 20, 58),)), 1.0)
    assert rule.pace == 10
    rule.heed(Limits(requests=(Window(6000, 20, 58),)), 1.0)
    assert rule.pace == 10


def test_new_rate_keeps_what_was_learned() -> None:
    rule = Rule(100)
    Batch(Sliding(20), rule, 600).run()
    learned = rule.pace
    assert learned == pytest.approx(20, rel=0.2)
    for most in (50.0, math.inf, 80.0):
        rule.retune(most)
        assert rule.pace == learned
    rule.retune(5.0)
    assert rule.pace == 5
