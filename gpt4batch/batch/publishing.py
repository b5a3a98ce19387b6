"""What a run sends to NSQ, and who sends it; loaded only where it does: 25 ms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpt4batch.fleet.topics import topics
from gpt4batch.journal import names
from gpt4batch.nsq.link import Access
from gpt4batch.nsq.publisher import Publisher, message
from gpt4batch.nsq.spool import Backlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.journal.journal import Journal
    from gpt4batch.service.conversation import Outcome
    from gpt4batch.settings import Settings


def tasks_for(settings: Settings, _: Journal) -> Publisher:
    """Return a publisher of a coordinator's tasks.

    Raises:
        UsageError: The library is missing, or the topic or an address is not valid.
    """
    place = topics(settings)
    return Publisher(place.addresses, place.hellos, Backlog(), access=place.access)


def publisher_for(settings: Settings, journal: Journal) -> Publisher:
    """Return the publisher of a run with `-n`.

    Raises:
        UsageError: The library is missing, or the topic or an address is not valid.
    """
    out = Path("gpt4batch") if journal.streaming else journal.out
    return Publisher(
        settings.nsqd_tcp_address.split(","),
        settings.nsq_topic,
        names.beside(out, names.SPOOL),
        access=Access(settings.nsq_tls, settings.nsq_ca, settings.nsq_auth_secret),
    )


def publishing(publisher: Publisher, folder: str) -> Callable[[Outcome], None]:
    """Return what hands the new answers of a line to NSQ, with the folder of its downloads."""

    def publish(outcome: Outcome) -> None:
        asks = outcome.line.asks
        for place in range(outcome.published, len(outcome.answers)):
            publisher.publish(message(asks[place].content, outcome.answers[place], folder))
        outcome.published = len(outcome.answers)

    return publish
