"""The command `check`: what can be known of a run before its first paid call."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import typer

from gpt4batch.cli.frame import named
from gpt4batch.errors import UsageError
from gpt4batch.settings import FILES, Settings, flag
from gpt4batch.words import Message, counted, joined, spoken, tr

if TYPE_CHECKING:
    from gpt4batch.batch.preflight import Finding, Report
    from gpt4batch.batch.survey import Plan

HELP = tr(
    "Check a batch before it is paid for, and say what it will cost; writes and calls nothing."
)
EXAMPLES = ("gpt4batch check -i questions.jsonl -o out.jsonl",)
SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings(Settings):
    """The settings of the run that is checked."""

    json: bool = flag(False, "json", "Print the report as JSON.", panel=FILES, common=True)

    refusal: UsageError | None = None
    """Why a run would not take the settings, where that is to be told as JSON."""

    def __post_init__(self) -> None:
        """Refuse what no run can work with."""
        try:
            Settings.__post_init__(self)
        except UsageError as error:
            if not self.json:
                raise
            object.__setattr__(self, "refusal", error)


SETTINGS = CheckSettings


def action(settings: CheckSettings) -> None:
    """Check what a run with these flags would need and do; exit as the run would."""
    import logging

    from gpt4batch.lines import rawjson
    from gpt4batch.lines.steering import printable

    logging.getLogger("gpt4batch").addHandler(logging.NullHandler())
    report = _report(settings)
    report.findings = [replace(item, message=named(item.message)) for item in report.findings]
    if settings.json:
        typer.echo(rawjson.pretty(asdict(report)).decode())
    else:
        typer.echo(printable("\n".join(words(report, settings))))
    sys.exit(report.exit_code)


def _report(settings: CheckSettings) -> Report:
    import anyio

    from gpt4batch.batch.preflight import Report, check
    from gpt4batch.cli.metrics import served

    if settings.refusal is not None:
        report = Report()
        report.refuse("settings", settings.refusal)
        return report
    report = anyio.run(check, settings)
    if settings.metrics_port:
        try:
            with served(settings.metrics_port, settings.metrics_address):
                pass
        except UsageError as error:
            report.refuse("metrics", error)
    return report


ABOUT = {
    "addresses": tr("addresses"),
    "attachments": tr("attachments"),
    "budget": tr("budget"),
    "descriptors": tr("open files"),
    "disk": tr("disk"),
    "downloads": tr("downloads"),
    "files": tr("files"),
    "ids": tr("ids"),
    "input": tr("input"),
    "keys": tr("keys"),
    "metrics": tr("metrics"),
    "network": tr("network"),
    "nsq": tr("NSQ"),
    "output": tr("output"),
    "plan": tr("plan"),
    "settings": tr("settings"),
    "token": tr("token"),
}
"""What a finding is about, as it is shown; the JSON has the English word."""


def words(report: Report, settings: Settings) -> list[str]:
    """Return the report, a line a row."""
    rows = _plan(report.plan, settings) if report.plan else []
    for level, title in (
        ("refused", tr("refused, nothing would be called:")),
        ("fails", tr("these lines would fail:")),
        ("note", tr("worth a look:")),
    ):
        found = [finding for finding in report.findings if finding.level == level]
        if found:
            rows += [title, *_listed(found)]
    verdicts = {0: tr("ready to run"), 1: tr("can run; some lines would fail")}
    rows.append(verdicts.get(report.exit_code, tr("would not run")))
    return [spoken(row) for row in rows]


def _listed(found: list[Finding]) -> list[Message]:
    """Return the first findings about each thing, so that many of one kind hide no other."""
    about: Counter[str] = Counter()
    rows = []
    for finding in found:
        about[finding.about] += 1
        if about[finding.about] <= SHOWN:
            name = ABOUT.get(finding.about, finding.about)
            rows.append(tr("  {about}: {finding}", about=name, finding=finding.message))
    if more := len(found) - len(rows):
        rows.append(tr("  and {count:,} more; --json has them all", count=more))
    return rows


def _tokens(plan: Plan) -> list[Message]:
    """Return what the calls may take; nothing at a service that does not tell."""
    if not plan.tokens_in:
        return []
    parts = [
        tr(
            "about {given:,} + {made:,} tokens (in + out)",
            given=plan.tokens_in,
            made=plan.tokens_out,
        )
    ]
    if plan.cost is not None:
        parts.append(tr("cost {cost:.4f}", cost=plan.cost))
    if plan.tokens_from == "assumed":
        parts.append(tr("by the length of the texts: half or twice as many"))
    else:
        parts.append(tr("by earlier answers"))
    return [joined(", ", parts)]


def _plan(plan: Plan, settings: Settings) -> list[Message]:
    from gpt4batch.cli.units import size

    lines = counted("{n:,} line", "{n:,} lines", plan.lines)
    parts = [tr("{lines}: {to_run:,} to run", lines=lines, to_run=plan.to_run)]
    if plan.done:
        parts.append(tr("{number:,} done already", number=plan.done))
    if plan.bad_lines:
        parts.append(tr("{number:,} bad", number=plan.bad_lines))
    chats = counted("{n:,} chat call", "{n:,} chat calls", plan.chats)
    if plan.uploads:
        uploads = counted("{n:,} upload", "{n:,} uploads", plan.uploads)
        uploads += f" ({size(plan.upload_bytes)})"
        chats = joined(", ", (chats, uploads))
    rows = [joined(", ", parts), chats, *_time(plan, settings), *_tokens(plan)]
    if plan.free_bytes:
        rows.append(
            tr(
                "output about {size}; {free} free",
                size=size(plan.output_bytes),
                free=size(plan.free_bytes),
            )
        )
    return rows


def _time(plan: Plan, settings: Settings) -> list[Message]:
    """Return how long it takes, and how that is known."""
    from gpt4batch.cli.units import duration, rough

    if not plan.chats:
        return []
    basis = {
        "assumed": tr("assuming {call} a call"),
        "output": tr("at the {call} a call of the output"),
    }[plan.call_seconds_from]
    return [
        tr(
            "about {time} with {pace}, {basis}",
            time=rough(plan.seconds),
            pace=f"-q {settings.qps:g} -g {settings.goroutine}",
            basis=basis.filled(call=duration(plan.call_seconds)),
        )
    ]
