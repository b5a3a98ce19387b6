"""Which line is where, and which call may leave: the whole scheduler of a fleet; pure, no clock.

A line is nobody's, or with one worker under the name of a *go*. It waits there until the worker
asks for a call and the call is granted; until then it can move at no cost. A call that was granted
and of whose end nobody will learn stays noted with its line: granted anew, it is *asked again*.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gpt4batch.fleet.health import Health
from gpt4batch.fleet.messages import ASKS, CALLS, CUT, LOST, OK, UNUSED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpt4batch.fleet.messages import News, Word

FRESH = 1.5
"""Seconds after its last news in which a worker is granted calls."""
QUIET = 4.0
"""Seconds of silence after which a worker's lines move that have no call out."""
VOID = 5.0
"""Seconds after which a task or a permit that shows no effect was lost on its way."""
GATHERING = 3.0
"""Seconds after the first worker came in which others may follow that do better."""
AHEAD = 2.0
"""Seconds of the pace for which lines wait at the workers."""
REVIEW = 0.25
"""Seconds after which every worker is looked at again: some get lines by the time that passed."""


@dataclass(slots=True)
class Row:
    """A line in hand.

    Args:
        index: Its place in the input.
        answered: Answers that the log has of it.
        run: The go that has it; empty where it is nobody's.
        worker: Whose go that is.
        seq: The task that handed it out; 0 where another coordinator did.
        since: When it was handed out.
        step: The results of the go, as its worker says.
        taken: The results of the go that the log has.
        call: The newest call that the go asked for.
        asks: That call waits for its permit.
        out: The call that was granted and has not ended; 0 where there is none.
        granted: When that was.
        owed: An answer has come, and the result that has it has not.
        begun: It has a place at its worker.
        unsure: Goes that left a call behind of which nobody knows the end, and which; 0 is any.
        tried: Workers that failed the line.
        ended: Its end is known.
    """

    index: int
    answered: int = 0
    run: str = ""
    worker: str = ""
    seq: int = 0
    since: float = 0.0
    step: int = 0
    taken: int = 0
    call: int = 0
    asks: bool = False
    out: int = 0
    granted: float = 0.0
    owed: bool = False
    begun: bool = False
    unsure: dict[str, int] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    ended: bool = False


@dataclass(slots=True)
class Member:
    """A worker, and what it has of this batch.

    Args:
        id: Its name.
        news: The last that it said.
        seen: When that came, by the clock of the table.
        came: The same, by the clock of the machine.
        seq: The tasks that it was sent.
        rows: The lines it has, by their place in the input.
        waiting: Lines among them without a place.
        again: Lines that ask for a further call.
        first: Lines that ask for their first call.
    """

    id: str
    news: News
    seen: float = 0.0
    came: float = 0.0
    seq: int = 0
    rows: dict[int, Row] = field(default_factory=dict)
    waiting: int = 0
    again: deque[Row] = field(default_factory=deque)
    first: deque[Row] = field(default_factory=deque)

    @property
    def free(self) -> int:
        """Return the places that no line has."""
        return self.news.places - self.news.elsewhere - (len(self.rows) - self.waiting)

    @property
    def out(self) -> int:
        """Return how many of its calls are out."""
        return sum(row.out > 0 for row in self.rows.values())

    def asking(self, queue: deque[Row]) -> Row | None:
        """Return the first line in a queue that still asks and whose results are in the log."""
        for _ in range(len(queue)):
            row = queue.popleft()
            if row.worker != self.id or not row.asks or row.ended:
                continue
            if row.taken >= row.step:
                queue.appendleft(row)
                return row
            queue.append(row)
        return None


class Call(NamedTuple):
    """A call that came to its end: of which line and worker, how, and its Retry-After."""

    line: int
    worker: str
    how: str
    after: float


class Table:
    """The lines in hand and the workers that are here.

    Args:
        name: Begins the name of every go.
        rate: Calls a second; 0 is no limit.
        lease: Seconds for which a call that is out keeps its line at a silent worker.
    """

    def __init__(self, name: str, rate: float, lease: float) -> None:
        self.rows: dict[int, Row] = {}
        self.members: dict[str, Member] = {}
        self.health = Health()
        self.drops: list[tuple[str, int, str]] = []
        """Worker, line and go of each line that a worker is to forget."""
        self.over: list[Call] = []
        """The calls that came to their end."""
        self.out = 0
        """The calls that are out."""
        self.waiting = 0
        """The lines that are at workers and have no place there yet."""
        self._name = name
        self._lease = lease
        self._most = AHEAD * rate + 8 if rate else float("inf")
        self._todo: deque[Row] = deque()
        self._able: OrderedDict[str, None] = OrderedDict()
        self._asking: OrderedDict[str, None] = OrderedDict()
        """Workers that may take a line, or ask for a call: those of which something changed."""
        self._reviewed = 0.0
        self._count = 0
        self._now = 0.0
        self._gathered = float("inf")

    # -- lines -------------------------------------------------------------------------------

    def offer(self, index: int, answered: int) -> Row:
        """Take in a line, if it is not here already."""
        row = self.expect(index, answered)
        if not row.run and not row.ended:
            self._todo.append(row)
        return row

    def expect(self, index: int, answered: int) -> Row:
        """Take in a line that a worker has from an earlier coordinator."""
        return self.rows.setdefault(index, Row(index, answered))

    def withdraw(self, index: int) -> None:
        """Forget a line, and let its worker forget it."""
        row = self.rows.pop(index)
        row.ended = True
        self._part(row)

    def forget(self, index: int) -> None:
        """Forget a line whose end is in the log, and let its worker forget it."""
        if (row := self.rows.pop(index, None)) is not None:
            self.out -= row.out > 0
            if row.run:
                self.drops.append((row.worker, index, row.run))

    def move(self, row: Row, *, told: bool = True) -> None:
        """Take a line from its worker, to hand it out anew; `told` lets that one know."""
        self._part(row, told=told)
        if not row.ended:
            self._todo.appendleft(row)

    def end(self, row: Row) -> None:
        """Note that the end of a line is known: its worker has the place for another."""
        row.ended = True
        self._take_off(row)

    def _take_off(self, row: Row) -> None:
        if (member := self.members.get(row.worker)) and member.rows.pop(row.index, None):
            self._wait(member, -(not row.begun))

    def _wait(self, member: Member, more: int) -> None:
        """Note that more lines wait at a worker, or fewer; it may have room for others."""
        member.waiting += more
        self.waiting += more
        self._able[member.id] = self._asking[member.id] = None

    def _part(self, row: Row, *, told: bool = True) -> None:
        """Part a line from its go; a call that is out may be paid for."""
        if not row.run:
            return
        if row.out or row.owed:
            row.unsure[row.run] = row.out or row.call - row.asks
        if row.out:
            self._close(row, LOST)
        if told:
            self.drops.append((row.worker, row.index, row.run))
        self._take_off(row)
        row.run, row.worker, row.seq = "", "", 0
        row.step = row.taken = row.call = 0
        row.asks = row.begun = row.owed = False

    def _give(self, row: Row, member: Member, run: str, now: float) -> None:
        row.run, row.worker, row.since = run, member.id, now
        member.rows[row.index] = row
        self._wait(member, not row.begun)

    def assign(self, now: float) -> list[Row]:
        """Hand out lines to workers that have room for them, and return those."""
        given: list[Row] = []
        passed: list[Row] = []
        if now - self._reviewed >= REVIEW:
            self._reviewed = now
            self._able.update(dict.fromkeys(self.members))
        while self._able and self._todo and self.waiting < self._most:
            row = self._todo.popleft()
            if row.ended or row.run:
                continue
            member = self._next_able(row, now)
            if member is None:
                passed.append(row)
                continue
            self._count += 1
            member.seq += 1
            row.seq = member.seq
            self._give(row, member, f"{self._name}.{self._count}", now)
            given.append(row)
        self._todo.extendleft(reversed(passed))
        return given

    def _next_able(self, row: Row, now: float) -> Member | None:
        """Return the worker whose turn it is to take a line; not one that has failed it."""
        tried: list[str] = []
        found: Member | None = None
        while found is None and self._able:
            name, _ = self._able.popitem(last=False)
            member = self.members.get(name)
            if member is None or not self._is_able(member, now):
                continue
            if name in row.tried:
                tried.append(name)
            else:
                found = member
        for name in reversed(tried):
            self._able[name] = None
            self._able.move_to_end(name, last=False)
        return found

    def _is_able(self, member: Member, now: float) -> bool:
        if member.news.leaving or now - member.seen > FRESH:
            return False
        if not self.health.fit(member.id, self.members, now):
            return False
        room = 2 + member.news.places // 4 + max(0, member.free)
        return member.waiting < (room if self.health.well(member.id) else 1)

    # -- news --------------------------------------------------------------------------------

    def hear(self, news: News, words: dict[int, Word], now: float, came: float = 0.0) -> bool:
        """Take in what a worker says; tell whether it is a new one."""
        member = self.members.get(news.worker)
        if new := member is None:
            member = self.members[news.worker] = Member(news.worker, news)
            self._gathered = min(self._gathered, now + GATHERING)
        elif news.said <= member.news.said:
            return False
        assert member is not None
        member.news, member.seen, member.came = news, now, came
        self._wait(member, 0)
        for index, said in words.items():
            self._hear_of(member, index, said, now)
        if news.whole:
            for row in [row for row in member.rows.values() if row.index not in words]:
                if row.seq <= news.got or now - row.since > VOID:
                    self.move(row, told=False)
        return new

    def _hear_of(self, member: Member, index: int, said: Word, now: float) -> None:
        row = self.rows.get(index)
        if row is None or row.ended or row.run not in ("", said.run):
            known = row is not None and row.ended and row.run == said.run  # its Drop will come
            if not known:
                self.drops.append((member.id, index, said.run))
            return
        if not row.run and not self._adopt(row, member, said, now):
            return
        if row.out and (said.call > row.out or said.state not in (ASKS, CALLS)):
            self._close(row, said.how, said.after)
        elif row.out and said.state == ASKS and now - row.granted > VOID:
            self._close(row, UNUSED)
        if said.begun:
            self._begin(row, member)
        asked = row.call if row.asks else 0
        row.call, row.step = said.call, said.step
        row.asks = said.state == ASKS and not row.out
        if row.asks and asked != said.call:
            (member.again if row.begun else member.first).append(row)

    def _adopt(self, row: Row, member: Member, said: Word, now: float) -> bool:
        """Leave a line with the worker that has it from an earlier coordinator.

        Not where the log has come further since, by another one: it would ask that again.
        """
        if said.run.startswith(f"{self._name}.") or said.answers < row.answered:
            self.drops.append((member.id, row.index, said.run))
            return False
        row.begun, row.taken = said.begun, max(row.taken, said.acked)
        self._give(row, member, said.run, now)
        if said.run in row.unsure:
            del row.unsure[said.run]
            row.out, row.granted = said.call, now
            self.out += 1
        return True

    def silent(self, now: float) -> Iterator[str]:
        """Take the lines of workers that are silent; yield the workers that are gone for good."""
        self._now = now
        for member in list(self.members.values()):
            away = now - member.seen
            if away <= QUIET and not member.news.leaving:
                continue
            gone = away > self._lease or (member.news.leaving and not member.rows)
            for row in list(member.rows.values()):
                if gone or not row.out:
                    self.move(row)
            if gone:
                del self.members[member.id]
                yield member.id

    def bench(self, now: float) -> None:
        """Take the lines without a call out from workers that only fail."""
        for member in self.members.values():
            if self.health.well(member.id) or self.health.fit(member.id, self.members, now):
                continue
            for row in [row for row in member.rows.values() if not row.out and not row.begun]:
                self.move(row)

    # -- calls -------------------------------------------------------------------------------

    def next_ask(self, now: float) -> Row | None:
        """Return the line whose call is to leave next, of the worker whose turn it is."""
        while self._asking:
            name, _ = self._asking.popitem(last=False)
            member = self.members.get(name)
            if member is None or now - member.seen > FRESH:
                continue
            row = member.asking(member.again)
            if row is None and member.free > 0:
                row = member.asking(member.first)
            if row is not None:
                self._asking[name] = None  # it may ask for more
                return row
        return None

    def grant(self, row: Row, now: float) -> bool:
        """Let the call of a line leave; tell whether it is asked again."""
        row.asks, row.out, row.granted = False, row.call, now
        self.out += 1
        self._begin(row, self.members[row.worker])
        again = bool(row.unsure)
        row.unsure.clear()
        return again

    def _begin(self, row: Row, member: Member) -> None:
        if not row.begun:
            row.begun = True
            self._wait(member, -1)

    def _close(self, row: Row, how: str, after: float = -1.0) -> None:
        if how == CUT:
            row.unsure[row.run] = row.out
        row.out, row.owed = 0, how == OK
        self.out -= 1
        self.over.append(Call(row.index, row.worker, how, after))

    # -- results -----------------------------------------------------------------------------

    def take(
        self, row: Row, run: str, step: int, call: int, how: str, *, whole: bool = True
    ) -> bool:
        """Note a result; tell whether it is news of the go that has the line.

        One that gives the line back is not `whole`: a result before it may be lost with its answer.
        """
        if row.run == run:
            if row.out and call >= row.out:
                self._close(row, how)
            fresh = step > row.taken
            if fresh and not whole and step > row.taken + 1:
                row.unsure[run] = 0
            row.owed = row.owed and not fresh
            row.taken = max(row.taken, step)
            self._asking[row.worker] = None  # its next call may leave now
            return fresh
        if how != CUT and (whole or step == 1) and call >= row.unsure.get(run, 0):
            row.unsure.pop(run, None)
        return False

    def alone(self, row: Row) -> bool:
        """Tell whether there is no worker left that could do what others failed to do."""
        return self._now >= self._gathered and not any(
            member.id not in row.tried
            and not member.news.leaving
            and self._now - member.seen <= QUIET
            and self.health.well(member.id)
            for member in self.members.values()
        )
