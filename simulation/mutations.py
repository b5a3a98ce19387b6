"""Faults that are put in by hand, each of which the judge has to find.

`python -m simulation.mutations` patches the program under test in a process of its own, a fault at
a time, and plays histories until one breaks a promise.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import wraps
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4batch import disk
from gpt4batch.batch.budget import Budget
from gpt4batch.batch.runner import Runner
from gpt4batch.dialects.base import NOWHERE
from gpt4batch.dialects.gpt4api import Gpt4Api
from gpt4batch.dialects.openai_stream import Fold
from gpt4batch.fleet.epoch import Book
from gpt4batch.fleet.intake import Intake
from gpt4batch.fleet.permits import Permits
from gpt4batch.fleet.table import Row, Table
from gpt4batch.fleet.worker import Worker
from gpt4batch.journal.in_flight import InFlight
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.ledger import Ledger
from gpt4batch.journal.log import Log
from gpt4batch.journal.ordered import Records
from gpt4batch.lines.record import State
from gpt4batch.nsq.spool import Spool
from gpt4batch.service.connections import Channel
from gpt4batch.service.pacing import Schedule
from gpt4batch.service.part_file import PartFile
from simulation.__main__ import FLEET, RUNS, warm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gpt4batch.service.http1 import ResponseReader

MOST = 2000
"""Histories within which each fault has to be found."""


def _nothing(*_args: Any, **_named: Any) -> None:
    """Do nothing in place of what is left out."""


def _put(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _rename_before_the_sync() -> None:
    original = disk.replacing

    @contextmanager
    def replacing(*args: Any, **named: Any) -> Iterator[Any]:
        with original(*args, **named | {"synced": False}) as file:
            yield file

    _put(disk, "replacing", replacing)


def _partial_records_left_out() -> None:
    original = Log.advance

    @wraps(original)
    def advance(self: Log, index: int, state: State, now: Any) -> None:
        if state is not State.PARTIAL:
            original(self, index, state, now)

    _put(Log, "advance", advance)


def _answer_not_appended() -> None:
    original, count = Log.append, [0]

    @wraps(original)
    def append(self: Log, index: int, state: State, record: bytes) -> None:
        count[0] += 1
        if count[0] % 10:
            original(self, index, state, record)

    _put(Log, "append", append)


def _slot_given_twice() -> None:
    original, turns = Schedule.leave, [0]

    @wraps(original)
    def leave(self: Schedule, now: float, pace: float) -> None:
        turns[0] += 1
        if turns[0] % 2:
            original(self, now, pace)

    _put(Schedule, "leave", leave)


def _one_call_too_many() -> None:
    _put(Budget, "spend", _nothing)


def _order_reversed() -> None:
    original = Records._final_record  # noqa: SLF001 - what is written at the end

    @wraps(original)
    def final_record(self: Records, index: int, ledger: Ledger) -> bytes:
        return original(self, len(ledger) - 1 - index, ledger)

    _put(Records, "_final_record", final_record)


def _link_replaced() -> None:
    def of(_cls: Any, out: str, *, fsync: str, clock: Any) -> Journal:
        return Journal(Path(out).absolute(), fsync=fsync, clock=clock)

    _put(Journal, "of", classmethod(of))


def _reply_lost_without_a_word() -> None:
    original = InFlight.sent

    @wraps(original)
    def sent(self: Any) -> None:
        if self.left == 0:
            self._count += 1

    _put(InFlight, "sent", sent)


def _done_lines_run_again() -> None:
    original = Ledger.put

    @wraps(original)
    def put(self: Any, index: int, state: State, *args: Any, **named: Any) -> None:
        wrong = state is State.DONE and index == 0 and not self.states[index]
        original(self, index, State.FAILED if wrong else state, *args, **named)

    _put(Ledger, "put", put)


def _result_given_up_too_soon() -> None:
    original = Intake.take

    @wraps(original)
    async def take(self: Intake, result: Any, delivery: Any) -> None:
        delivery.finish()
        await original(self, result, delivery)

    _put(Intake, "take", take)


def _stray_reply_taken() -> None:
    given, kept, listen = Channel.data_received, "_stray", Channel.listen

    @wraps(given)
    def data_received(self: Channel, data: bytes) -> None:
        if self.reader is None:
            setattr(self, kept, data)
        else:
            given(self, data)

    @wraps(listen)
    def listens(self: Channel, reader: ResponseReader) -> None:
        listen(self, reader)
        if stray := getattr(self, kept, b""):
            setattr(self, kept, b"")
            reader.feed(stray)

    _put(Channel, "data_received", data_received)
    _put(Channel, "listen", listens)


def _moved_call_forgotten() -> None:
    original = Table._part  # noqa: SLF001 - where a line leaves its worker

    @wraps(original)
    def part(self: Table, row: Row, *, told: bool = True) -> None:
        before = dict(row.unsure)
        original(self, row, told=told)
        row.unsure = before

    _put(Table, "_part", part)


def _permit_twice() -> None:
    original, turns = Permits._next, [0]  # noqa: SLF001 - what asks for the next call

    @wraps(original)
    def next_row(self: Permits) -> Any:
        turns[0] += 1
        if turns[0] % 2:
            self._pacer.wait = _at_once  # type: ignore[method-assign]
        return original(self)

    _put(Permits, "_next", next_row)


async def _at_once(**_named: Any) -> float:
    return 0.0


FLEETS: dict[str, Callable[[], None]] = {
    "fleet: a call that is not noted": lambda: _put(Book, "call_out", _nothing),
    "fleet: a moved call that is forgotten": _moved_call_forgotten,
    "fleet: a result given up too soon": _result_given_up_too_soon,
    "fleet: a spool that is not kept": lambda: _put(Spool, "append", lambda *_: True),
    "fleet: a place that is taken twice": lambda: _put(Worker, "take_place", lambda _self: True),
    "fleet: a permit without a turn": _permit_twice,
    "fleet: a result that nsqd forgets too soon": lambda: _put(Log, "on_disk", sys.maxsize),
    "fleet: an end that is not waited for": lambda: _put(Book, "close", _nothing),
}
"""Faults of a fleet, found in histories of one."""
MUTATIONS: dict[str, Callable[[], None]] = {
    "an fsync left out": lambda: _put(disk, "sync", _nothing),
    "a folder that is not synced": lambda: _put(disk, "sync_folder", _nothing),
    "a rename before the sync": _rename_before_the_sync,
    "a download that counts before it is synced": lambda: _put(PartFile, "sync", _nothing),
    "an answer that is not appended": _answer_not_appended,
    "half-way records left out": _partial_records_left_out,
    "a slot given twice": _slot_given_twice,
    "a call beyond the budget": _one_call_too_many,
    "lines out of order": _order_reversed,
    "a link replaced by a file": _link_replaced,
    "a chat in flight that is not noted": lambda: _put(InFlight, "write", _nothing),
    "a note given up before it was told": _reply_lost_without_a_word,
    "a done line that runs again": _done_lines_run_again,
    "a conversation that begins anew": lambda: _put(Gpt4Api, "thread", lambda *_: NOWHERE),
    "a lock that all get": lambda: _put(disk, "lock", lambda *_args, **_named: True),
    "a stray reply that is taken": _stray_reply_taken,
    "a stream that was cut and counts": lambda: _put(Fold, "ended", True),
    "an exit code of success": lambda: _put(Runner, "_exit_code", lambda *_: 0),
}


def found_after(name: str, most: int) -> tuple[int, str]:
    """Put a fault in and return after how many histories it was found, and how; 0 is never."""
    warm()
    kind = FLEET if name in FLEETS else RUNS
    (FLEETS | MUTATIONS)[name]()
    for seed in range(most):
        try:
            broken = kind.play(kind.drawn(seed)).broken
        except Exception as error:  # noqa: BLE001 - an output that cannot be judged is broken
            broken = [f"the judge cannot read what is there: {error!r}"]
        if broken:
            return seed + 1, broken[0]
    return 0, ""


def main() -> int:
    """Look for every fault; 1 says that one was not found."""
    parser = argparse.ArgumentParser(prog="simulation.mutations", description=__doc__)
    parser.add_argument("--most", type=int, default=MOST, help="histories for each fault")
    parser.add_argument("names", nargs="*", default=[*MUTATIONS, *FLEETS], help="the faults")
    options = parser.parse_args()
    if unknown := set(options.names) - MUTATIONS.keys() - FLEETS.keys():
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    missed = 0
    # A process for each: what is patched stays patched.
    jobs, context = os.cpu_count() or 1, get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        looked = [pool.submit(found_after, name, options.most) for name in options.names]
        for name, future in zip(options.names, looked, strict=True):
            number, how = future.result()
            missed += not number
            print(f"{number or 'not found':>9}  {name}: {how[:120]}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
