"""Everything that can be known of a run before its first call; nothing is written or called.

What a run refuses is refused here by the same code. What would make single lines fail is found by
the same code as well, but fails nothing yet: `fails`. What only looks wrong is a `note`.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gpt4batch.batch.chosen import Chosen
from gpt4batch.batch.download_folder import download_folder
from gpt4batch.batch.estimates import Estimate
from gpt4batch.batch.refusals import (
    forms_for,
    lines_at_once,
    nearest,
    refuse_bad_results,
    refuse_empty,
    refuse_error_file,
    refuse_other_files,
    refuse_output,
    refuse_redo,
    refuse_shared_files,
    refuse_unpriced,
    too_few_descriptors,
    what_to_do,
    writable,
)
from gpt4batch.batch.survey import Level, Plan, Survey
from gpt4batch.dialects.known import GPT4API, dialect_for
from gpt4batch.errors import Gpt4BatchError, UsageError
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.source import Source
from gpt4batch.lines.record import State
from gpt4batch.service import credentials, wiring
from gpt4batch.service.certificates import certificates
from gpt4batch.service.proxies import proxy_of
from gpt4batch.settings import Settings
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpt4batch.dialects.base import Dialect

log = logging.getLogger(__name__)

VERSION = 1
ASSUMED_BYTES = 4000
SAMPLE = 2000
"""Lines of an earlier run that are looked at for the length of its calls."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong or worth knowing.

    `refused` stops the run before it starts, `fails` costs single lines, `note` nothing.
    """

    level: Level
    about: str
    message: str


@dataclass(slots=True)
class Report:
    """What was found, and the plan where the input could be read."""

    version: int = VERSION
    exit_code: int = 0
    findings: list[Finding] = field(default_factory=list)
    plan: Plan | None = None

    def refuse(self, about: str, error: Gpt4BatchError) -> None:
        """Note what stops the run, which would exit with the first such code, or with 2."""
        self.findings.append(Finding("refused", about, str(error)))
        if self.exit_code != UsageError.exit_code:
            self.exit_code = error.exit_code


# -- the check -------------------------------------------------------------------------------


async def check(settings: Settings) -> Report:
    """Look at everything a run with these settings would need."""
    with ExitStack() as stack:
        return await _Check(settings, stack).report()


class _Check:
    """One look: each part goes on where another one was refused."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._settings = settings
        self._stack = stack
        self._found = Report()
        self._dialect: Dialect = GPT4API
        self._journal = Journal.of(settings.out, fsync=settings.fsync)
        stack.callback(self._journal.close)

    async def report(self) -> Report:
        settings, journal = self._settings, self._journal
        self._try("addresses", self._choose)
        if self._calls and not self._found.findings:
            self._try("token", self._token)
            self._try("network", self._network)
        self._try("files", lambda: refuse_redo(settings))
        self._try("files", lambda: refuse_shared_files(settings))
        self._try("budget", lambda: refuse_unpriced(settings))
        self._try("output", lambda: refuse_output(settings, journal))
        self._try("output", journal.look_at_lock)
        self._try("output", lambda: refuse_other_files(settings))
        if not settings.fleet:
            self._try("descriptors", self._descriptors)
        self._try("input", self._input)
        if self._calls and "addresses" not in self._refused:
            addresses = wiring.endpoints(settings, self._dialect)
            for text in self._dialect.doubts(addresses, settings):
                self._note("note", "addresses", text)
        if settings.fleet or settings.enable_nsq:
            await self._reach_nsq()
        if self._found.plan is not None:
            self._sum_up(self._found.plan)
        return self._found

    @property
    def _calls(self) -> bool:
        """Return whether this process calls the service itself, with a token of its own."""
        return not self._settings.mock and not self._settings.fleet

    @property
    def _refused(self) -> set[str]:
        return {item.about for item in self._found.findings if item.level == "refused"}

    def _choose(self) -> None:
        """Find out what the service speaks; where that is refused, the rest is looked at still."""
        self._dialect = dialect_for(self._settings)

    def _note(self, level: Level, about: str, message: str) -> None:
        self._found.findings.append(Finding(level, about, message))
        if level == "fails":
            self._found.exit_code = self._found.exit_code or 1

    def _try(self, about: str, look: Callable[[], None]) -> None:
        try:
            look()
        except Gpt4BatchError as error:
            self._found.refuse(about, error)

    # -- token and network -------------------------------------------------------------------

    def _token(self) -> None:
        wiring.first_token(self._settings, self._dialect)
        if self._dialect is GPT4API:
            credentials.account()

    def _network(self) -> None:
        addresses = wiring.endpoints(self._settings, self._dialect)
        certificates(addresses.values())
        for url in addresses.values():
            proxy_of(url, self._settings.proxy)

    @property
    def _options(self) -> dict[str, Any]:
        return self._dialect.defaults(self._settings)

    async def _reach_nsq(self) -> None:
        from gpt4batch.batch.publishing import publisher_for, tasks_for

        settings = self._settings
        for used, publisher in ((settings.fleet, tasks_for), (settings.enable_nsq, publisher_for)):
            try:
                if used:
                    await publisher(settings, self._journal).reach()
            except UsageError as error:
                self._found.refuse("nsq", error)

    # -- files -------------------------------------------------------------------------------

    def _descriptors(self) -> None:
        most = lines_at_once(self._settings, reachable=True)
        if most < self._settings.goroutine:
            self._note("note", "descriptors", too_few_descriptors(self._settings, most))

    def _input(self) -> None:
        settings = self._settings
        source = Source(settings.input, form_of=forms_for(self._dialect, self._options))
        self._stack.callback(source.close)
        self._journal.open(source, fix=settings.fix, repair=False)
        self._try("output", lambda: refuse_error_file(settings, source, self._journal))
        skip = settings.skip_bad_results
        self._try("output", lambda: refuse_bad_results(self._journal, skip=skip))
        if skip or not self._journal.findings.is_refused:
            found = self._journal.findings.words(source.path, None)
            for words in (*found, *source.form.notes()):
                self._note("note", "output", words)
        if settings.enable_download and self._dialect.linked:
            folder = download_folder(settings, source).resolve()
            self._try("downloads", lambda: writable(folder / "file", tr("downloads")))
        self._try("input", lambda: _refuse_quietly(source, skip=settings.skip_bad_lines))
        for error in source.bad:
            level: Level = "fails" if settings.skip_bad_lines else "refused"
            self._note(level, "input", str(error))
        self._try("input", lambda: refuse_empty(source, self._journal, fix=settings.fix))
        self._try("input", lambda: self._plan(source))

    # -- the plan ----------------------------------------------------------------------------

    def _plan(self, source: Source) -> None:
        settings = self._settings
        chosen = Chosen(self._journal, source, settings.limit, settings.only, redo=settings.redo)
        ledger = self._journal.ledger
        plan = Plan(lines=len(ledger), bad_lines=source.bad_count, done=ledger.count(State.DONE))
        survey = Survey(source, plan, self._note, self._dialect)
        for index in chosen:
            survey.take(self._journal.line(index))
        survey.tell()
        if not plan.to_run:
            self._note(
                "note", "plan", tr("there is nothing to run: {reason}", reason=_why_none(plan))
            )
        self._learn(plan, survey.estimate)
        self._found.plan = plan

    def _learn(self, plan: Plan, estimate: Estimate) -> None:
        """Take the length of calls and answers, and their tokens, from lines of an earlier run."""
        ledger = self._journal.ledger
        done = [index for index, state in enumerate(ledger.states) if state == State.DONE]
        seconds, size = [], 0
        sample = done[:: max(1, len(done) // SAMPLE)]
        for index in sample:
            line = self._journal.line(index)
            size += len(line.raw)
            estimate.learn(line.meta)
            seconds += [_seconds(ask) for ask in line.meta.get("asks") or ()]
        known = [value for value in seconds if value > 0]
        if known:
            plan.call_seconds, plan.call_seconds_from = sum(known) / len(known), "output"
        each = size / len(sample) if sample else ASSUMED_BYTES * plan.chats / max(plan.to_run, 1)
        plan.output_bytes = round(each * plan.lines)
        expected, price = estimate.total(), self._settings.priced
        plan.tokens_in, plan.tokens_out = expected.input, expected.output
        plan.tokens_from = "output" if estimate.is_learned else "assumed"
        plan.cost = price and round(price.of(expected), 6)

    def _sum_up(self, plan: Plan) -> None:
        """Work out how long it takes, and whether disk and token last."""
        settings = self._settings
        calls = plan.chats + plan.uploads
        paced = calls / settings.qps if settings.qps else 0.0
        at_once = min(settings.goroutine, max(plan.to_run, 1))
        held = calls * plan.call_seconds / at_once
        plan.seconds = max(paced + plan.call_seconds, held) if calls else 0.0
        if not self._journal.streaming:
            where = nearest(self._journal.out.parent)
            with suppress(OSError):
                plan.free_bytes = shutil.disk_usage(where).free
            if plan.free_bytes < 2 * plan.output_bytes:
                text = tr(
                    "{where} has {free:,} bytes free; the output is expected to need {needed:,}, as"
                    " it is written once more at the end; downloads come on top",
                    where=where,
                    free=plan.free_bytes,
                    needed=2 * plan.output_bytes,
                )
                self._note("note", "disk", text)
        self._compare_token(plan)

    def _compare_token(self, plan: Plan) -> None:
        settings = self._settings
        if not self._calls or settings.token or settings.token_file:
            return
        if self._dialect is not GPT4API:
            return  # a key of its own, which does not say when it expires
        try:
            expires = credentials.load().expires
        except UsageError:
            return  # refused already
        if expires is None or (expires - datetime.now(UTC)).total_seconds() > plan.seconds:
            return
        when = credentials.shown(expires)
        text = tr(
            "the stored token expires at {when}, before the run is expected to end; set "
            "GPT4BATCH_EMAIL and GPT4BATCH_PASSWORD, and the run renews it itself",
            when=when,
        )
        self._note("note", "token", text)


def _refuse_quietly(source: Source, *, skip: bool) -> None:
    """Refuse bad lines as a run does; each of them is a finding of its own already."""
    if source.bad and not skip:
        raise UsageError(
            tr(
                "{count} bad line(s): {advice}",
                count=len(source.bad),
                advice=what_to_do(source),
            )
        )


def _why_none(plan: Plan) -> str:
    """Return why there is no line to run."""
    if not plan.lines:
        return tr("the input has no lines")
    if not plan.bad_lines:
        return tr("every line is done")
    return tr("every good line is done") if plan.done else tr("every line is bad")


def _seconds(ask: object) -> float:
    value = ask.get("seconds") if isinstance(ask, dict) else None
    return float(value) if isinstance(value, int | float) else 0.0
