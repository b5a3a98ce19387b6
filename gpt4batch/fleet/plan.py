"""What a coordinator is asked to do, and what it needs of the batch that it is done for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from gpt4batch.control import Control
    from gpt4batch.fleet.messages import Manner
    from gpt4batch.lines.parse import Line
    from gpt4batch.service.allowance import Allowance
    from gpt4batch.service.conversation import Outcome


@dataclass(frozen=True, slots=True)
class Plan:
    """What the fleet is asked to do; a rate or a number of calls of 0 is no limit.

    Attachments of a line in `folder` travel with it if they are `inline` bytes at most.
    """

    manner: Manner
    rate: float
    max_calls: int
    lease: float
    folder: Path
    inline: int
    allowance: Allowance | None = None
    """What calls may take in tokens and money; None is no limit."""


class Counts(Protocol):
    """What is counted of a run, as far as a fleet knows it."""

    chats: int
    retries: int


class Lines(Protocol):
    """The lines of the batch, and where their answers go."""

    @property
    def control(self) -> Control:
        """Tells whether the run goes on."""

    @property
    def progress(self) -> Counts:
        """Counts chats and retries."""

    def __len__(self) -> int:
        """Return the number of lines."""

    def line(self, index: int) -> Line:
        """Return a line with what was answered of it before."""

    @property
    def written(self) -> int:
        """Return where the log ends."""

    @property
    def on_disk(self) -> int:
        """Return up to where the log would survive a power cut."""

    def settled(self, index: int) -> bool:
        """Tell whether a line has come to its end."""

    async def keep(self, outcome: Outcome) -> None:
        """Note a line that is half-way."""
