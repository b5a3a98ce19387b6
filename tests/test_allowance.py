"""Tokens a minute, tokens and money in all: the rule in virtual time, and prices."""

from __future__ import annotations

import heapq
import random

import pytest

from gpt4batch.errors import UsageError
from gpt4batch.price import Price
from gpt4batch.service.allowance import Learned, Taken, TokenPace
from gpt4batch.usage import Usage

MINUTES = 8


def drive(
    most: int, mean: int, spread: float, latency: float, seed: int
) -> list[tuple[float, int]]:
    """Return when each call leaves and what it takes, where as many as may leave do so."""
    rand, pace, learned = random.Random(seed), TokenPace(most), Learned()
    now, sent = 0.0, list[tuple[float, int]]()
    out: list[tuple[float, int, Taken, Usage]] = []
    while now < 60 * MINUTES:
        while out and out[0][0] <= now:
            _, _, taken, usage = heapq.heappop(out)
            pace.settle(taken, usage.total)
            learned.add(300, usage)
        expected = learned.expected(300) if learned.calls else most / 60
        taken = pace.take(now, expected)
        tokens = max(2, round(rand.gauss(mean, spread * mean)))
        usage = Usage(tokens // 2, 0, tokens - tokens // 2)
        now = taken.moment
        sent.append((now, tokens))
        done = now + rand.uniform(0.5, 1.5) * latency
        heapq.heappush(out, (done, len(sent), taken, usage))
    return sent


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("latency", [0.5, 20.0])
@pytest.mark.parametrize(
    ("most", "mean", "spread"), [(100_000, 500, 0.0), (100_000, 500, 0.4), (1_000_000, 3000, 0.3)]
)
def test_tokens_a_minute_are_used_and_never_exceeded(
    most: int, mean: int, spread: float, latency: float, seed: int
) -> None:
    sent = drive(most, mean, spread, latency, seed)
    start, within, worst = 0, 0, 0
    for moment, tokens in sent:
        within += tokens
        while sent[start][0] <= moment - 60:
            within -= sent[start][1]
            start += 1
        worst = max(worst, within)
    late = [tokens for moment, tokens in sent if moment >= 120]
    # What is in flight is only expected: many long calls that differ may add up to more.
    assert worst <= most * (1.03 if spread and latency > 1 else 1)
    assert sum(late) >= 0.95 * most * (MINUTES - 2)


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
