"""Tokens a minute, tokens and money in all: the rule in virtual time, and prices."""

from __future__ import annotations

import heapq
import random
from collections import deque

import pytest

from gpt4batch.errors import UsageError
from gpt4batch.price import Price
from gpt4batch.service.allowance import Learned, Taken, TokenPace
from gpt4batch.usage import Usage

MINUTES = 8


class Minute:
    """A service that refuses a call whose tokens do not fit into the last minute."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.accepted: deque[tuple[float, int]] = deque()
        self.within = self.refused = self.late = 0

    def takes(self, now: float, tokens: int) -> bool:
        while self.accepted and self.accepted[0][0] <= now - 60:
            self.within -= self.accepted.popleft()[1]
        if self.within + tokens > self.most:
            self.refused += 1
            return False
        self.accepted.append((now, tokens))
        self.within += tokens
        self.late += tokens * (now >= 120)
        return True


def drive(service: Minute, mean: int, spread: float, latency: float, seed: int) -> None:
    """Make calls, as many at a time as the pace allows."""
    rand, pace, learned = random.Random(seed), TokenPace(service.most), Learned()
    now, number = 0.0, 0
    out: list[tuple[float, int, Taken, Usage]] = []
    while now < 60 * MINUTES:
        expected = learned.expected(300, service.most / 60)
        leaves = now + pace.wait(now, expected)
        if out and out[0][0] <= leaves:
            now, _, taken, usage = heapq.heappop(out)
            pace.settle(taken, usage.total)
            learned.add(300, usage)
            continue
        now = leaves
        tokens = max(2, round(rand.gauss(mean, spread * mean)))
        usage = Usage(tokens // 2, 0, tokens - tokens // 2)
        taken = pace.take(now, expected)
        if service.takes(now, tokens):
            number += 1
            done = now + rand.uniform(0.2, 1.8) * latency
            heapq.heappush(out, (done, number, taken, usage))
        else:
            pace.settle(taken, 0)
            now += 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("latency", "used"), [(0.5, 0.97), (2, 0.95), (20, 0.88)])
@pytest.mark.parametrize(
    ("most", "mean", "spread"),
    [(60_000, 250, 0.0), (60_000, 250, 0.4), (1_000_000, 3000, 0.3), (200_000, 500, 1.0)],
)
def test_tokens_a_minute_are_used_and_never_exceeded(
    most: int, mean: int, spread: float, latency: float, used: float, seed: int
) -> None:
    service = Minute(most)
    drive(service, mean, spread, latency, seed)
    assert service.refused == 0
    assert service.late >= used * most * (MINUTES - 2)


def test_price_is_that_of_a_million_tokens() -> None:
    price = Price.read("in=1, cached=0.5,out=2")
    assert price is not None
    assert price.of(Usage(3_000_000, 1_000_000, 500_000, 100_000)) == pytest.approx(3.5)
    assert Price.read("in=1,out=2") == Price(1, 1, 2)
    assert Price.read("") is None


@pytest.mark.parametrize(
    "text", ["1", "in=1", "out=2", "in=x,out=1", "in=-1,out=1", "up=1,in=1,out=1"]
)
def test_price_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--price"):
        Price.read(text)


def test_call_that_took_far_more_than_a_minute_allows_holds_up_the_next_for_a_minute() -> None:
    pace = TokenPace(100)
    pace.settle(pace.take(0.0, 10), 5_000_000)
    assert 59 <= pace.wait(1.0, 10) <= 60
    assert pace.wait(61.0, 10) == 0
