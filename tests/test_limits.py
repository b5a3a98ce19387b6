"""What services say of their limits in headers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gpt4batch.dialects.limits import Limits, Window, limits_of, seconds

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EPOCH = NOW.timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12ms", 0.012),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("2m59.56s", 179.56),
        ("1h30m", 5400.0),
        ("30", 30.0),
        ("59.9", 59.9),
        ("2026-01-02T03:04:35Z", 30.0),
        ("2026-01-02T05:04:35+02:00", 30.0),
        (f"{EPOCH + 30:.0f}", 30.0),
        (f"{(EPOCH + 30) * 1000:.0f}", 30.0),
        ("2026-01-02T03:00:00Z", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
        ("6m0", None),
    ],
)
def test_time_is_read_in_every_form(text: str, expected: float | None) -> None:
    found = seconds(text, NOW)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            {
                "x-ratelimit-limit-requests": "600",
                "x-ratelimit-remaining-requests": "20",
                "x-ratelimit-reset-requests": "58s",
                "x-ratelimit-limit-tokens": "90000",
                "x-ratelimit-remaining-tokens": "80000",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            Limits((Window(600, 20, 58),), (Window(90000, 80000, 360),)),
        ),
        (
            {
                "X-RateLimit-Limit": "20",
                "X-RateLimit-Remaining": "3",
                "X-RateLimit-Reset": f"{(EPOCH + 30) * 1000:.0f}",
            },
            Limits((Window(20, 3, 30),)),
        ),
        (
            {
                "anthropic-ratelimit-requests-limit": "50",
                "anthropic-ratelimit-requests-remaining": "1",
                "anthropic-ratelimit-requests-reset": "2026-01-02T03:05:05Z",
            },
            Limits((Window(50, 1, 60),)),
        ),
        (
            {
                "x-ratelimit-limit-tokens": "1000",
                "x-ratelimit-remaining-tokens": "10",
                "x-rate-limit-reset-tokens": "60",
            },
            Limits((), (Window(1000, 10, 60),)),
        ),
        (
            {
                "x-ratelimit-limit-requests": "-1",
                "x-ratelimit-remaining-requests": "-1",
                "x-ratelimit-reset-requests": "0",
            },
            Limits(),
        ),
        ({"x-ratelimit-limit-requests": "600"}, Limits()),
        ({"content-type": "application/json"}, Limits()),
    ],
    ids=["go", "epoch", "anthropic", "misspelt", "unknown", "part", "none"],
)
def test_limits_are_read_as_services_write_them(headers: dict[str, str], expected: Limits) -> None:
    assert limits_of(headers, NOW) == expected


def test_reset_is_the_time_to_the_full_limit_and_no_wait() -> None:
    assert Window(600, 0, 60).refill == 10
    assert Window(600, 60, 54).scarce
    assert not Window(600, 61, 54).scarce
