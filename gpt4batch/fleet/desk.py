"""One batch at a worker: the lines that it holds, what it says of them, and their permits."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from gpt4batch.control import Control, Stopped
from gpt4batch.errors import AttachmentError, CallError, FatalError, OutputError
from gpt4batch.fleet.coordinator import BEAT, failed
from gpt4batch.fleet.holds import HOLD, TOLERANCE, Hold, Permits, Way
from gpt4batch.fleet.inline_files import unpacked
from gpt4batch.fleet.messages import (
    ASKS,
    BACK,
    CALLS,
    COUNTED,
    CUT,
    ENDED,
    FINAL,
    OVERDUE,
    PART,
    RESTS,
    UNUSED,
    Drop,
    ForeignError,
    Hello,
    News,
    Permit,
    Result,
    Task,
    written,
)
from gpt4batch.lines.parse import BadLine, parse_line
from gpt4batch.words import because, told, tr

if TYPE_CHECKING:
    from gpt4batch.fleet.topics import Post
    from gpt4batch.fleet.worker import Worker
    from gpt4batch.lines.parse import Line
    from gpt4batch.nsq.publisher import Publisher
    from gpt4batch.service.conversation import Conversation, Outcome

TOO_LONG = tr(
    "the answers have {count} bytes, more than nsqd takes (--max-msg-size {limit}); worker {name} "
    "keeps them in its spool"
)
NO_ROOM = tr("no room for answers in {path}")
SILENT = 20.0
"""Seconds without a word of the coordinator after which lines without a call out go back."""
IDLE = 60.0
"""Seconds of silence after which a batch is put away."""
RESENT = 10.0
"""Seconds after which a result that the coordinator does not seem to have is sent again."""
GAP = 0.01
"""Seconds for which changes are gathered before they are said."""


class Desk:
    """One batch at this worker."""

    def __init__(self, worker: Worker, batch: str, results: Publisher, post: Post) -> None:
        self.batch = batch
        self.control = Control()
        self.permits = Permits(self, worker.pacer, worker.clock)
        self.holds: dict[int, Hold] = {}
        self._worker = worker
        self._results = results
        self._post = post
        self._hello: Hello | None = None
        self._heard = self._worker.clock.monotonic()
        self._got = 0
        self._way = Way(self._worker.clock)
        self._changed: set[int] = set()
        self._news = anyio.Event()
        self._conversations: list[Conversation] = []

    # -- what the coordinator says -----------------------------------------------------------

    def hear(self, hello: Hello) -> None:
        """Take in that the batch is on, or over."""
        before = self._hello
        if before is not None and (hello.epoch, hello.life) < (before.epoch, before.life):
            return
        if before is None:
            worker, own = self._worker, Path(self._worker.settings.files_root)
            folders = (own, worker.parcels(self.batch))
            self._conversations = [worker.conversation(self, hello, one) for one in folders]
        if before is None or before.life != hello.life:
            self._got, self._way = 0, Way(self._worker.clock)
            for hold in self.holds.values():
                hold.sent = 0.0  # the new coordinator may have missed what the old one was sent
            self._news.set()
        self._hello, self._heard = hello, self._worker.clock.monotonic()
        if hello.over:
            self.control.halt()
            self._give_up()

    def obey(self, message: Permit | Drop) -> None:
        """Do what the coordinator says of one line."""
        hold = self.holds.get(message.line)
        if hold is None or hold.run != message.run:
            return
        if isinstance(message, Drop):
            self._drop(hold)
        elif hold.state == ASKS and hold.call == message.call:
            self._use(hold, message)

    def _use(self, hold: Hold, permit: Permit) -> None:
        """Let a call leave, unless its permit is stale or its line finds no place."""
        hold.leaves = self._way.leaves(permit)
        if hold.leaves is None or not (hold.begun or self._worker.take_place()):
            hold.call += 1
            hold.how = OVERDUE if hold.leaves is None else UNUSED
        else:
            hold.begun, hold.state, hold.how, hold.after = True, CALLS, "", -1.0
            hold.chat = False
            hold.acked, hold.body = hold.step, b""
            hold.permit.set()
        self.say(hold)

    def _drop(self, hold: Hold) -> None:
        hold.dropped = True
        hold.permit.set()
        if hold.state == ENDED:
            del self.holds[hold.line]

    def _give_up(self) -> None:
        """Let go of all lines that have no call out."""
        for hold in list(self.holds.values()):
            self._drop(hold)

    # -- calls -------------------------------------------------------------------------------

    async def ask(self, hold: Hold) -> None:
        """Wait for a permit.

        Raises:
            Stopped: The line is not wanted here any more.
        """
        on_time = False
        while not (on_time or hold.dropped):
            if hold.state == CALLS:
                hold.how = OVERDUE  # it was held up here, and nothing was sent
            hold.call += 1
            hold.state, hold.permit = ASKS, anyio.Event()
            self.say(hold)
            try:
                await hold.permit.wait()
            finally:
                if hold.state == ASKS:
                    hold.state = RESTS
            if hold.leaves:
                await anyio.sleep(max(0.0, hold.leaves - self._worker.clock.monotonic()))
            on_time = not hold.leaves or self._worker.clock.monotonic() <= hold.leaves + TOLERANCE
        if hold.dropped:
            raise Stopped

    def call_ended(self, hold: Hold) -> None:
        """Note that a call has come to its end."""
        cut = isinstance(sys.exc_info()[1], anyio.get_cancelled_exc_class())
        hold.state, hold.how = RESTS, CUT if cut else hold.how
        self.permits.chats += hold.chat
        self.say(hold)

    # -- lines -------------------------------------------------------------------------------

    async def run(self, task: Task) -> None:
        """Hold a line and hand in what comes of it.

        Raises:
            ForeignError: It is none.
        """
        self._got = max(self._got, task.seq)
        before = self.holds.get(task.line)
        if self.control.draining or (before is not None and before.run == task.run):
            return  # nsqd may hand a task out twice
        if before is not None:
            self._drop(before)
        line = _line_of(task)
        hold = self.holds[task.line] = Hold(task.line, task.key, task.run)
        hold.answers = max(0, line.answered)
        HOLD.set(hold)
        outcome: Outcome | None = None
        try:
            outcome = await self._outcome(task, line)
        finally:  # also when this is cancelled: the coordinator has to know
            self._let_go(hold, give_back=outcome is None)
        if outcome is not None:
            await self._finish(hold, outcome)

    async def _outcome(self, task: Task, line: Line) -> Outcome | None:
        """Return what came of a line, or None where it is to go back."""
        try:
            return await self._conversation(task).hold(line)
        except AttachmentError as error:
            return failed(line, error)
        except Stopped:
            return None
        except FatalError as error:
            self._worker.fail(error)
            return None

    def _let_go(self, hold: Hold, *, give_back: bool) -> None:
        """Give the place of a line back, and the line itself where nothing came of it."""
        if hold.begun:
            self._worker.give_place()
        hold.begun, hold.state = False, ENDED
        if give_back:
            if self.holds.get(hold.line) is hold:
                del self.holds[hold.line]
            self._hand_in(hold, BACK, None)
        self.say(hold)

    def _conversation(self, task: Task) -> Conversation:
        """Return what holds a line's conversation, with the files that came along with it."""
        if not task.files:
            return self._conversations[0]
        folder = self._worker.parcels(self.batch)
        try:
            unpacked(folder, task.files)
        except OSError as error:
            raise OutputError(
                tr("cannot write in {folder}: {reason}", folder=folder, reason=because(error))
            ) from error
        except (ValueError, TypeError) as error:
            raise AttachmentError(
                tr("an attachment that came along is none: {error}", error=error)
            ) from error
        return self._conversations[1]

    async def _finish(self, hold: Hold, outcome: Outcome) -> None:
        name, error = self._worker.name, outcome.error
        if isinstance(error, AttachmentError):
            outcome.error = AttachmentError(
                tr("{error}, on worker {name}", error=error, name=name), code=error.code
            )
            outcome.error.stage, outcome.error.attempts = error.stage, error.attempts
        self._hand_in(hold, FINAL, outcome)
        if not await self._results.fits(hold.body):
            text = TOO_LONG.filled(count=len(hold.body), limit=self._results.limit, name=name)
            short = failed(outcome.line, CallError(text, stage="fleet"))
            short.answers = []
            self._hand_in(hold, FINAL, short)

    async def keep(self, outcome: Outcome) -> None:
        """Hand in a line that is half-way."""
        self._hand_in(HOLD.get(), PART, outcome)

    def _hand_in(self, hold: Hold, kind: str, outcome: Outcome | None) -> None:
        hold.step += 1
        added, record, error = 0, b"", []
        if outcome is not None:
            error = [told(outcome.error)] if outcome.error else []
            added = max(0, len(outcome.answers) - hold.answers)
            hold.answers = len(outcome.answers)
            record = outcome.standing(finished=kind == FINAL).whole()
        result = Result(
            batch=self.batch,
            worker=self._worker.id,
            line=hold.line,
            key=hold.key,
            run=hold.run,
            step=hold.step,
            call=hold.call,
            kind=kind,
            how=hold.how,
            added=added,
            tally=self._tally(),
            error=error,
            record=record,
        )
        hold.body, hold.sent = written(result), self._worker.clock.monotonic()
        if not self._results.keep(hold.body):
            self._worker.fail(OutputError(NO_ROOM.filled(path=self._results.path)))

    # -- news --------------------------------------------------------------------------------

    def say(self, hold: Hold) -> None:
        """Have the coordinator told what a line is at."""
        self._changed.add(hold.line)
        self._news.set()

    async def live(self) -> None:
        """Say what is new until the batch is over and all that is known of it is handed in."""
        whole_at = 0.0
        while not self._is_over():
            now = self._worker.clock.monotonic()
            if self._hello is not None:
                if whole := now >= whole_at:
                    whole_at = now + BEAT
                    self._look_after_results(now)
                self._post.say(self._report(whole=whole))
            self._news = anyio.Event()
            await anyio.sleep(GAP)
            with anyio.move_on_after(max(0.0, whole_at - self._worker.clock.monotonic()) or BEAT):
                await self._news.wait()
        if self._hello is not None:
            self._post.say(self._report(whole=True))

    def _look_after_results(self, now: float) -> None:
        """Send again what the coordinator seems to miss; let lines go when it is silent."""
        waits = self._results.waiting.queue.waiting
        for hold in self.holds.values():
            if hold.body and now - hold.sent > RESENT and not waits:
                hold.sent = now
                self._results.keep(hold.body)
        if now - self._heard > SILENT:
            for hold in list(self.holds.values()):
                if hold.state == ASKS:
                    self._drop(hold)
        if now - self._heard > IDLE:
            self._give_up()

    @property
    def is_busy(self) -> bool:
        """Tell whether a line is under way."""
        return any(hold.state != ENDED for hold in self.holds.values())

    def _is_over(self) -> bool:
        silent = self._worker.clock.monotonic() - self._heard > IDLE
        over = (silent or self.control.halted) and self._results.left == 0
        return not self.is_busy and (self._worker.left or over)

    def _tally(self) -> dict[str, int]:
        """Return what was done of the batch here, whichever folder its files came from."""
        tally = Counter({"chats": self.permits.chats, "retries": self.permits.retries})
        for conversation in self._conversations:
            stats = conversation.stats()
            tally.update({name: getattr(stats, name) for name in COUNTED[2:]})
        return dict(tally)

    def _report(self, *, whole: bool) -> News:
        worker = self._worker
        own = sum(hold.begun for hold in self.holds.values())
        changed = self.holds if whole else self._changed & self.holds.keys()
        lines = {str(line): list(self.holds[line].word()) for line in changed}
        self._changed.clear()
        limits, self.permits.named = self.permits.named, []
        longest = max((one.stats().longest for one in self._conversations), default=0.0)
        return News(
            batch=self.batch,
            worker=worker.id,
            topic=worker.address,
            places=worker.settings.goroutine,
            elsewhere=worker.busy - own,
            got=self._got,
            whole=whole,
            leaving=worker.is_stopping,
            trouble=[told(worker.trouble)] if worker.trouble else [],
            lines=lines,
            tally=self._tally(),
            errors=dict(self.permits.errors),
            limits=limits,
            longest=longest,
            said=self._worker.clock.monotonic(),
        )


def _line_of(task: Task) -> Line:
    try:
        line = parse_line(task.record, task.line, task.number)
    except BadLine as error:
        raise ForeignError(tr("a task whose line is none: {error}", error=error)) from None
    if task.fresh:
        line.forget()
    if line.key.hex() != task.key:
        raise ForeignError(tr("a task whose line is another"))
    return line
