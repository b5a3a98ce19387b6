"""What reading an output brought to light: records that cannot be read, and results of others."""

from __future__ import annotations

import contextlib
import re
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import BOM, Id, key_of
from gpt4batch.lines.record import LOG_MARK
from gpt4batch.words import Message, joined, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gpt4batch.lines.parse import Line

TOLERATED = 3
SHARE = 100
"""A crash or a slip leaves a few damaged records: three, or one in a hundred."""

SHOWN = 10
HOLE = re.compile(rb"\0{4,}")
"""What a power cut leaves of bytes that did not reach the disk; in UTF-16 NULs stand alone."""

BEGINNING = re.compile(rb'\s*(?:\{\s*(?:"|$)|$)')

ADVICE = (
    (
        re.compile(rb"\xff\xfe|\xfe\xff|.\0.\0|\0.\0.", re.DOTALL),
        tr("it is UTF-16: save it as UTF-8"),
    ),
    (re.compile(rb"\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|PK"), tr("it is compressed: unpack it")),
    (re.compile(rb"\s*\["), tr("it is a JSON array: write one record a line, as jq -c '.[]' does")),
    (
        re.compile(rb".*\}\s*\{\s*\"", re.DOTALL),
        tr("its line breaks are gone: jq -c . puts them back"),
    ),
    (
        re.compile(rb"\s*\{\s*$"),
        tr("it was pretty-printed: write one record a line, as jq -c . does"),
    ),
)


DAMAGED = tr("{row}; the record is damaged and does not count as a result: see {where}")
MORE = tr("{path}: {count:,} more damaged records: see {where}")
HOLES = tr(
    "{path}: {count:,} lines have holes, as a power cut leaves them; only what is whole around them"
    " counts"
)
STRANGERS = tr(
    "{path}: {count:,} results belong to no line of {source} (they are of another input, or of "
    "prompts that were edited since); they are kept in {where}; to use them, give that file as the "
    "output of the input they belong to: -i INPUT -o FILE -f"
)
RETYPED = tr(
    "{example}: {count:,} results do not match their line only because the id has another type, and"
    " those lines are asked again; to keep them, stop now and write the ids in the input as they "
    "are in the output"
)
ELSEWHERE = tr(
    "{other} holds results of {source} that {path} lacks, and their lines are asked again; to use "
    "them, stop now and run with -i {source} -o {other} -f"
)


@dataclass(slots=True)
class Findings:
    """What an output holds besides the results of the input's lines.

    `damaged` are records that cannot be read, `strangers` results of other lines; both are kept
    aside. `retyped` are those strangers whose id differs from a line's by its type alone.
    """

    path: Path
    records: int = 0
    readable: int = 0
    damaged: int = 0
    holes: int = 0
    torn: int = 0
    strangers: int = 0
    retyped: int = 0
    advice: str = ""
    retyped_example: str = ""
    elsewhere: list[Path] = field(default_factory=list)
    _shown: list[str] = field(default_factory=list)
    _foreign: bool = False
    _starts: array[int] = field(default_factory=lambda: array("Q"))
    _sizes: array[int] = field(default_factory=lambda: array("Q"))

    def damage(self, start: int, number: int, raw: bytes, reason: str) -> None:
        """Note a record that cannot be read."""
        if len(self._shown) < SHOWN:
            self._shown.append(
                tr("{path}:{number}: {reason}", path=self.path, number=number, reason=reason)
            )
        text = raw.removeprefix(BOM).removeprefix(LOG_MARK)
        several = rawjson.objects_in(text)
        self.damaged += max(1, several)
        self.records += max(1, several) - 1
        if several > 1 or not BEGINNING.match(text):
            self._foreign = True
        if not self.advice:
            found = (words for pattern, words in ADVICE if pattern.match(raw))
            self.advice = next(found, "")
        self.keep(start, len(raw))

    def stranger(
        self, start: int, number: int, line: Line, size: int, find: Callable[[bytes], int]
    ) -> None:
        """Note a result of no line; one would be that of a line if its id were text, or a number.

        Args:
            start: The offset of its record.
            number: The number of its line in the output.
            line: What it is.
            size: The bytes of its record.
            find: Returns the line that a key belongs to, or -1.
        """
        self.strangers += 1
        self.keep(start, size)
        for other in _retyped(line.id):
            if find(key_of(other, line.asks, line.manner)) >= 0:
                self.retyped += 1
                self.retyped_example = self.retyped_example or tr(
                    "{path}:{number}: the id is {found}, and {wanted} in the input",
                    path=self.path,
                    number=number,
                    found=_shown(line.id),
                    wanted=_shown(other),
                )
                return

    def keep(self, start: int, size: int) -> None:
        """Note a text that is to be kept aside."""
        self._starts.append(start)
        self._sizes.append(size)

    def kept(self) -> Iterator[tuple[int, int]]:
        """Yield offset and size of each text that is to be kept aside."""
        yield from zip(self._starts, self._sizes, strict=True)

    def __len__(self) -> int:
        """Return how many texts are to be kept aside."""
        return len(self._starts)

    @property
    def is_refused(self) -> bool:
        """Return whether too much is damaged for an output of this tool after a crash."""
        if self._foreign and not self.readable:
            return True
        return self.damaged > max(TOLERATED, self.records // SHARE)

    def refusal(self) -> str:
        """Return why the output is refused, and what to do."""
        more = self.damaged - len(self._shown)
        rows = [*self._shown, tr("and {count:,} more", count=more)] if more else self._shown
        advice = joined("", ("; ", self.advice)) if self.advice else ""
        listed = joined("\n", [joined("", ("  ", row)) for row in rows])
        return tr(
            "{path} cannot be read as an output: {damaged:,} of {records:,} records "
            "cannot be read; nothing was called:\n"
            "{listed}\n"
            "restore it as it was{advice}, or choose another output with -o; "
            "--skip-bad-results takes what can be read, keeps the rest aside, and asks "
            "(and pays for) those lines again",
            path=self.path,
            damaged=self.damaged,
            records=self.records,
            listed=listed,
            advice=advice,
        )

    def words(self, source: str, kept_in: Path | None) -> list[Message]:
        """Return what is worth knowing before the first call.

        Args:
            source: The input.
            kept_in: Where the texts are kept that belong to no line; None before that is known.
        """
        path = self.path
        where = str(kept_in or path.with_name(f"{path.stem}.<time>{path.suffix}"))
        more = self.damaged - len(self._shown)
        counts = ((more, MORE), (self.holes, HOLES), (self.strangers, STRANGERS))
        values = {"path": path, "source": source, "where": where}
        said = [DAMAGED.filled(row=row, where=where) for row in self._shown]
        said += [text.filled(count=count, **values) for count, text in counts if count > 0]
        if self.retyped:
            said.append(RETYPED.filled(example=self.retyped_example, count=self.retyped))
        return [*said, *(ELSEWHERE.filled(other=other, **values) for other in self.elsewhere)]


def is_torn(tail: bytes) -> bool:
    """Return whether a last line without a newline is the start of a record that a crash cut."""
    text = tail.removeprefix(BOM).removeprefix(LOG_MARK)
    if not text.strip(b"\0" + LOG_MARK):  # of the mark itself there may be only a part
        return True
    return bool(BEGINNING.match(text)) and not rawjson.objects_in(text)


def around_holes(raw: bytes) -> list[tuple[int, bytes]] | None:
    """Return what stands around the NULs that a power cut leaves in a line, with its places.

    None is a line without such a hole, or one in which nothing looks like a record.
    """
    ends = [0, *(end for hole in HOLE.finditer(raw) for end in hole.span()), len(raw)]
    pairs = zip(ends[::2], ends[1::2], strict=True)
    pieces = [(start, raw[start:end]) for start, end in pairs if raw[start:end].strip()]
    if len(ends) == 2 or (pieces and not any(BEGINNING.match(piece) for _, piece in pieces)):
        return None
    return pieces


def _retyped(line_id: Id) -> list[Id]:
    """Return what another tool may make of an id: text of a number, and a number of text."""
    if isinstance(line_id, int):
        return [str(line_id), f"{line_id}.0"]
    if line_id is None:
        return ["", "nan"]
    with contextlib.suppress(ValueError, OverflowError):
        number = float(line_id)
        if number.is_integer():
            return [int(line_id) if line_id.strip().lstrip("+-").isdecimal() else int(number)]
    return []


def _shown(line_id: Id) -> str:
    """Return an id as it stands in a line."""
    return rawjson.dumps(line_id).decode()[:100]
