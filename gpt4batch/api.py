"""One run, put together: the only module that knows all the parts.

What brings the answers is chosen here, this process or a fleet; everything below takes an executor.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt4batch.batch.budget import Budget
from gpt4batch.batch.download_folder import MIXED, download_folder
from gpt4batch.batch.refusals import (
    forms_for,
    lines_at_once,
    refuse_bad_lines,
    refuse_bad_results,
    refuse_empty,
    refuse_error_file,
    refuse_other_files,
    refuse_output,
    refuse_redo,
    refuse_shared_files,
    refuse_unpriced,
    too_few_descriptors,
)
from gpt4batch.batch.runner import Runner
from gpt4batch.batch.status import Messages, Probe, Status, Worker
from gpt4batch.batch.work import Work
from gpt4batch.clock import SYSTEM, Clock
from gpt4batch.control import Control
from gpt4batch.dialects.known import GPT4API, dialect_for
from gpt4batch.errors import UsageError
from gpt4batch.journal import names
from gpt4batch.journal.in_flight import InFlight
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.source import Source, refuse_missing
from gpt4batch.service import wiring
from gpt4batch.service.allowance import Allowance
from gpt4batch.service.client import Client
from gpt4batch.service.conversation import Conversation, Manner
from gpt4batch.service.pacing import Pacer
from gpt4batch.service.probing import Probing
from gpt4batch.settings import KIB, Settings
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import httpx

    from gpt4batch.batch.progress import Progress
    from gpt4batch.batch.runner import Task
    from gpt4batch.batch.summary import Summary
    from gpt4batch.batch.work import Executor
    from gpt4batch.fleet.coordinator import Fleet
    from gpt4batch.fleet.topics import Topics
    from gpt4batch.nsq.publisher import Publisher
    from gpt4batch.service.downloads import Downloads

    Show = Callable[[Progress, Callable[[], Status]], Coroutine[Any, Any, None]]

log = logging.getLogger(__name__)


async def run(  # noqa: PLR0913 - what differs from a run of the command, each by its name
    settings: Settings,
    *,
    show: Show | None = None,
    signals: bool = False,
    transport: httpx.AsyncBaseTransport | None = None,
    place: Topics | None = None,
    clock: Clock = SYSTEM,
    ended: Callable[[Summary], None] = lambda _summary: None,
) -> Summary:
    """Run one batch and return its summary.

    Args:
        settings: What to run.
        show: A task that displays the progress until it is cancelled; it is handed the counters,
            and a function that returns what the run is doing at the moment.
        signals: Obey SIGINT, SIGTERM and SIGHUP, as the command line does, until the run is over.
        transport: Sends the requests, instead of sockets.
        place: Where the messages of a fleet go, instead of nsqd.
        clock: Tells the time.
        ended: Is handed the summary before the note of chats without a reply is given up: a run
            that is killed in between leaves the note for the next one.

    Raises:
        UsageError: Something is refused; nothing was called.
        OutputError: The output cannot be written.
    """
    async with AsyncExitStack() as stack:
        parts = _Parts(settings, stack, transport, place, clock)
        await parts.prepare()
        summary = await parts.run(show, signals=signals)
        ended(summary)
        parts.forget()
        return summary


@dataclass(slots=True)
class _Calls:
    """What brings the answers, and what goes with it."""

    executor: Executor
    places: int
    downloads: Downloads | None = None
    fleet: Fleet | None = None
    beside: list[Task] = field(default_factory=list)


class _Parts:
    """The parts of one run, each made when what it is made of is there."""

    def __init__(
        self,
        settings: Settings,
        stack: AsyncExitStack,
        transport: httpx.AsyncBaseTransport | None,
        place: Topics | None,
        clock: Clock,
    ) -> None:
        self._transport = transport
        self._place = place
        self._clock = clock
        self._settings = settings
        self._dialect = dialect_for(settings)
        self._stack = stack
        self._control = Control()
        self._pacer = Pacer(settings.qps, self._control, settings.ramp, clock=clock)
        self._probing = Probing(self._control, settings.patience, clock=clock)
        self._journal = Journal.of(settings.out, fsync=settings.fsync, clock=clock)
        self._in_flight = InFlight(_beside(self._journal, names.IN_FLIGHT))
        self._publisher: Publisher | None = None
        self._work: Work
        self._calls: _Calls
        self._runner: Runner

    async def prepare(self) -> None:
        """Read the input, find what is done and open everything; nothing is called."""
        settings, journal = self._settings, self._journal
        if settings.mock and not settings.origin:
            raise UsageError(
                tr(
                    "mock=True: nothing listens; start gpt4batch.mock.server.MockService and "
                    "pass its origin and token, as examples/python_api.py does"
                )
            )
        refuse_redo(settings)
        refuse_missing(settings.input)
        refuse_shared_files(settings)
        refuse_unpriced(settings)
        refuse_output(settings, journal)
        refuse_other_files(settings)
        if settings.fleet:  # the workers have tokens and descriptors of their own
            source = self._read()
            self._work = Work(settings, journal, source, self._control, self._clock)
            self._calls = await self._gather_fleet()
        else:
            places = lines_at_once(settings)
            token = wiring.first_token(settings, self._dialect)
            source = self._read()
            self._work = Work(settings, journal, source, self._control, self._clock)
            self._calls = self._connect(token, places)
        if settings.enable_nsq:
            from gpt4batch.batch.publishing import publisher_for, publishing

            publisher = publisher_for(settings, journal)
            self._publisher = await self._stack.enter_async_context(publisher)
            self._work.publish = publishing(self._publisher, self._download_dir)
        self._start(source)

    def _read(self) -> Source:
        """Take the lock, read the input and find what is done."""
        settings, journal = self._settings, self._journal
        journal.lock()
        self._stack.callback(journal.close)
        spool = None if journal.streaming else journal.out.parent
        form_of = forms_for(self._dialect, self._dialect.defaults(settings))
        source = Source(settings.input, form_of=form_of, spool=spool, clock=self._clock)
        self._stack.callback(source.close)
        journal.open(source, fix=settings.fix)
        refuse_error_file(settings, source, journal)
        journal.errors = Path(settings.error_file).resolve() if settings.error_file else None
        refuse_bad_lines(source, skip=settings.skip_bad_lines)
        refuse_empty(source, journal, fix=settings.fix)
        refuse_bad_results(journal, skip=settings.skip_bad_results)
        return source

    def _connect(self, token: str, places: int) -> _Calls:
        """Make the calls in this process."""
        settings, work, control = self._settings, self._work, self._control
        addresses, source = wiring.endpoints(settings, self._dialect), work.source
        budget = Budget(settings.max_calls)
        transport = self._transport or wiring.sockets(addresses, settings.proxy)
        self._stack.push_async_callback(transport.aclose)

        def before_chat() -> None:
            budget.spend()
            work.progress.chat_sent()

        client = Client(
            transport,
            addresses,
            wiring.tokens(settings, token, transport, control, self._clock),
            self._pacer,
            control,
            retries=settings.retries,
            timeout=settings.timeout,
            before_chat=before_chat,
            on_retry=lambda error, _delay: work.progress.retrying(error),
            idle_timeout=settings.idle_timeout if settings.stream else float("inf"),
            in_flight=self._in_flight,
            dialect=self._dialect,
            probing=self._probing,
            allowance=allowance_for(settings, control, self._clock),
            clock=self._clock,
        )
        files = None
        if settings.enable_download and self._dialect.linked:
            folder = download_folder(settings, source)
            files = wiring.downloads(folder, settings, addresses, transport, control, self._clock)
        manner = Manner(source.folder, self._dialect.defaults(settings), source.path)
        executor = Conversation(
            client, files, manner, work.keep, places=work.pool, clock=self._clock
        )
        return _Calls(executor, places, files)

    async def _gather_fleet(self) -> _Calls:
        """Have the calls made by workers elsewhere; only here are their parts loaded: 30 ms."""
        from gpt4batch.fleet import messages
        from gpt4batch.fleet.coordinator import MOST_OUT, Fleet
        from gpt4batch.fleet.epoch import Book
        from gpt4batch.fleet.plan import Plan
        from gpt4batch.fleet.topics import topics

        settings, work = self._settings, self._work
        manner = messages.Manner(
            options=GPT4API.defaults(settings) | self._dialect.defaults(settings),
            retries=settings.retries,
            timeout=settings.timeout,
            downloads=settings.enable_download,
        )
        plan = Plan(
            manner,
            settings.qps,
            settings.max_calls,
            settings.lease,
            work.source.folder,
            settings.inline_files * KIB,
            allowance_for(settings, self._control, self._clock),
        )
        book = Book(_beside(work.journal, names.FLEET), fix=settings.fix)
        place = self._place or topics(settings)
        fleet = Fleet(book, plan, place, work, self._pacer, self._in_flight)
        await self._stack.enter_async_context(fleet)
        work.safe = fleet.safe
        return _Calls(fleet, MOST_OUT, fleet=fleet, beside=[fleet.serve])

    @property
    def _download_dir(self) -> str:
        files = self._calls.downloads
        return str(files.folder) if files else ""

    def _start(self, source: Source) -> None:
        """Make what the run writes to, the last thing before the first call."""
        settings, journal, work, calls = self._settings, self._journal, self._work, self._calls
        if calls.downloads is not None:
            calls.downloads.prepare(chosen=bool(settings.download_dir))
            if not settings.download_dir and not settings.mock:
                log.info(MIXED, source.folder)
        journal.start(fix=settings.fix)
        found = journal.findings.words(source.path, journal.kept_in)
        for words in (*found, *source.form.notes()):
            log.warning("%s", words)
        self._in_flight.open()
        self._stack.callback(self._in_flight.close)
        work.count()
        if not calls.fleet and calls.places < min(settings.goroutine, work.progress.to_run):
            log.warning("%s", too_few_descriptors(settings, calls.places))
        self._runner = Runner(
            settings, work, calls.executor, self._in_flight, self._publisher, clock=self._clock
        )

    async def run(self, show: Show | None, *, signals: bool) -> Summary:
        """Run the lines, and add to the summary what only the parts know."""
        calls, nsq = self._calls, self._publisher
        beside: list[Task] = list(calls.beside)
        if show is not None:
            beside.insert(0, partial(show, self._work.progress, self._status))
        summary = await self._runner.run(calls.places, beside, signals=signals)
        summary = replace(
            summary,
            download_dir=self._download_dir,
            fleet=calls.fleet.totals() if calls.fleet else {},
        )
        if nsq is None:
            return summary
        return replace(
            summary,
            nsq_sent=nsq.sent,
            nsq_left=nsq.left,
            nsq_too_big=nsq.waiting.too_big,
            nsq_lost=nsq.dropped,
            nsq_spool=str(nsq.path),
        )

    def forget(self) -> None:
        """Give up the note of chats without a reply: the summary has told of them."""
        self._in_flight.forget()

    def _status(self) -> Status:
        """Return what the run is doing at this moment."""
        control, pacer, probing = self._control, self._pacer, self._probing
        calls, nsq, snapshot = self._calls, self._publisher, self._runner.snapshot
        fetching = calls.downloads.under_way if calls.downloads else 0
        return Status(
            calls=calls.executor.stats(),
            places=calls.fleet.places if calls.fleet else self._settings.goroutine,
            draining=control.draining,
            grace_left=control.grace_left,
            pace=pacer.pace,
            cooling=pacer.cooling,
            room=pacer.room,
            probe=Probe(probing.next_in, probing.left, probing.words) if probing.on else None,
            workers=_workers(calls.fleet) if calls.fleet else None,
            fetching=fetching if self._settings.enable_download else None,
            snapshot=snapshot.name if snapshot else "",
            messages=Messages(nsq.sent, nsq.left, nsq.dropped, nsq.trouble) if nsq else None,
        )


def allowance_for(settings: Settings, control: Control, clock: Clock) -> Allowance | None:
    """Return what holds the run to its tokens and money; None where nothing does."""
    if not (settings.tpm or settings.max_tokens or settings.max_cost):
        return None
    return Allowance(
        control,
        per_minute=settings.tpm,
        most_tokens=settings.max_tokens,
        most_cost=settings.max_cost,
        price=settings.priced,
        clock=clock,
    )


def _beside(journal: Journal, name: str) -> Path | None:
    """Return a file beside the output, or None where the output is a stream."""
    return None if journal.streaming else names.beside(journal.out, name)


def _workers(fleet: Fleet) -> tuple[Worker, ...]:
    """Return what each worker of a fleet is at, by its last news."""
    left_out = fleet.table.health.left_out
    return tuple(
        Worker(name, member.out, member.news.places, member.news.errors, left_out.get(name))
        for name, member in sorted(fleet.table.members.items())
    )
