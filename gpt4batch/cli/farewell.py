"""The end of a run in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.cli.next_command import look_command
from gpt4batch.cli.units import duration, size
from gpt4batch.lines.steering import printable
from gpt4batch.words import Message, counted, joined, spoken, tr

if TYPE_CHECKING:
    from gpt4batch.batch.summary import Summary

SHOWN_GROUPS = 10
NOT_FOUND = 404
STAGES = {
    "input": tr("input"),
    "attachment": tr("attachment"),
    "upload": tr("upload"),
    "chat": tr("service error"),
    "reply": tr("answer with an error"),
    "download": tr("download"),
    "fleet": tr("fleet"),
    "internal": tr("internal"),
}
"""Where in a line something failed, as it is shown; the output has the English word."""

SIGNALS = {
    "SIGINT": tr("by Ctrl-C"),
    "SIGTERM": tr("by SIGTERM"),
    "SIGHUP": tr("by the end of its terminal (SIGHUP)"),
}
"""What ended a run, as it is shown; the summary has the signal's name."""


def farewell(summary: Summary, *, told: bool = False) -> str:
    """Return what came of a run, what failed and why, where the files are, and what to run next.

    Args:
        summary: The run.
        told: Why it stopped has been logged where this is shown.
    """
    rows = [_lines(summary), *_calls(summary), *_failures(summary), *_files(summary)]
    rows += _fleet(summary.fleet)
    if summary.stopped:
        reason = SIGNALS.get(summary.stopped, tr("see above") if told else summary.stopped)
        rows.append(tr("stopped: {reason}", reason=reason))
    if summary.next:
        rows.append(tr("go on with: {command}", command=summary.next))
    if look := look_command(summary):
        rows.append(tr("look at it: {command}", command=look))
    return printable("\n".join(map(spoken, rows)))


def _lines(summary: Summary) -> Message:
    parts = [tr("{done:,} of {lines:,} lines done", done=summary.done, lines=summary.lines)]
    if before := summary.done_before:
        parts[0] += tr(" ({before:,} of them before this run)", before=before)
    if failed := summary.failed:
        parts.append(tr("{number:,} failed", number=failed))
    if left := summary.not_run:
        parts.append(tr("{number:,} not run", number=left))
    took = duration(summary.seconds)
    return tr("{parts}; took {time}", parts=joined(", ", parts), time=took)


def _calls(summary: Summary) -> list[Message]:
    calls = counted("{n:,} chat call", "{n:,} chat calls", summary.chats)
    if ups := summary.uploads:
        calls = joined(", ", (calls, counted("{n:,} upload", "{n:,} uploads", ups)))
    parts = [calls]
    if again := summary.retries:
        parts.append(tr("{number:,} of them retries", number=again))
    if lost := summary.unanswered:
        parts.append(
            counted(
                "{n:,} chat without a reply, which may be paid for",
                "{n:,} chats without a reply, which may be paid for",
                lost,
            )
        )
    if killed := summary.killed_in_flight:
        parts.append(
            counted(
                "at most {n:,} chat without a reply when an earlier run was killed, which may be"
                " paid for too",
                "at most {n:,} chats without a reply when an earlier run was killed, which may be"
                " paid for too",
                killed,
            )
        )
    in_all = summary.chats_in_all
    if in_all is not None and in_all > summary.chats:
        parts.append(tr("at least {number:,} chat calls with the earlier runs", number=in_all))
    rows = [joined("; ", parts)]
    if summary.latency:
        times = {name: duration(seconds) for name, seconds in summary.latency.items()}
        rows.append(
            tr("answer time: half within {p50}, 90% within {p90}, 99% within {p99}", **times)
        )
    return rows + _tokens(summary)


def _tokens(summary: Summary) -> list[Message]:
    """Return what the calls took, where answers tell it, and how many were cut short."""
    rows, used, in_all = [], summary.tokens, summary.tokens_in_all
    if used:
        amounts = [tr("{input:,} + {output:,} (in + out)", **used)]
        if used["cached"]:
            amounts.append(tr("{number:,} cached", number=used["cached"]))
        if used["reasoning"]:
            amounts.append(tr("{number:,} reasoning", number=used["reasoning"]))
        parts = [tr("tokens: {amounts}", amounts=joined(", ", amounts))]
        if summary.cost is not None:
            each = summary.cost / max(summary.chats, 1)
            parts.append(tr("cost {cost:.4f} ({each:.6f} a call)", cost=summary.cost, each=each))
        if in_all != used:
            more = "" if summary.cost_in_all is None else f" ({summary.cost_in_all:.4f})"
            parts.append(
                tr("with the earlier runs {input:,} + {output:,}{more}", **in_all, more=more)
            )
        rows.append(joined("; ", parts))
    if summary.finishes:
        ended = ", ".join(f"{name} {count:,}" for name, count in sorted(summary.finishes.items()))
        rows.append(tr("answers that ended early: {ended}", ended=ended))
    return rows


def _failures(summary: Summary) -> list[Message]:
    groups = sorted(summary.failures, key=lambda group: -group["count"])
    rows = [_failure(group) for group in groups[:SHOWN_GROUPS]]
    if more := groups[SHOWN_GROUPS:]:
        lines = sum(group["count"] for group in more)
        rows.append(
            tr(
                "  {lines:,} × {causes} more causes; --summary FILE has them all",
                lines=lines,
                causes=len(more),
            )
        )
    if rows and not summary.done and all(group["code"] == NOT_FOUND for group in groups):
        rows.append(tr("every call got 404: is -u the right address? check looks at it"))
    return [tr("why lines failed:"), *rows] if rows else []


def _failure(group: dict[str, Any]) -> Message:
    shown = [str(example) for example in group["examples"]]
    if group["count"] > len(shown):
        shown.append("…")
    message = " ".join(spoken(group["message"]).split())
    code = str(group["code"])
    # 501 is what a failure without a status is written as; many messages begin with their status.
    is_told = code in ("200", "501") or message.startswith(code)
    status, stage = "" if is_told else f" {code}", STAGES.get(group["stage"], group["stage"])
    if group["stage"] == "chat" and code == "501":
        stage = tr("no connection or no answer")
    return tr(
        "  {count:,} × {stage}{status}: {message} (id {ids})",
        count=group["count"],
        stage=stage,
        status=status,
        message=message,
        ids=joined(", ", shown),
    )


def _files(summary: Summary) -> list[Message]:
    rows = []
    if summary.out:
        rows.append(tr("output: {path}", path=summary.out))
    if summary.moved_to:
        rows.append(tr("earlier output, moved: {path}", path=summary.moved_to))
    if summary.downloads:
        rows.append(
            tr(
                "downloads: {folder} ({files}, {size})",
                folder=summary.download_dir or tr("with the workers"),
                files=counted("{n:,} file", "{n:,} files", summary.downloads),
                size=size(summary.download_bytes),
            )
        )
    if summary.nsq_spool:
        parts = [tr("NSQ: {number:,} published", number=summary.nsq_sent)]
        if left := summary.nsq_left - summary.nsq_too_big:
            parts.append(
                tr(
                    "{number:,} wait in {spool}, the next run with -n sends them",
                    number=left,
                    spool=summary.nsq_spool,
                )
            )
        if too_big := summary.nsq_too_big:
            parts.append(
                tr(
                    "{number:,} over its --max-msg-size wait in {spool}, a run with -n sends them "
                    "once nsqd takes more",
                    number=too_big,
                    spool=f"{summary.nsq_spool}-too-big",
                )
            )
        if lost := summary.nsq_lost:
            parts.append(tr("{number:,} did not fit and are in the output only", number=lost))
        rows.append(joined("; ", parts))
    return rows


def _fleet(fleet: dict[str, Any]) -> list[Message]:
    """Return what a fleet may have paid for twice, and which workers were of no use."""
    rows = []
    if again := fleet.get("asked_again"):
        rows.append(
            counted(
                "{n:,} ask was asked again: the call before was cut off with its worker and may be "
                "paid for ({twice:,} of them were answered twice)",
                "{n:,} asks were asked again: the call before was cut off with its worker and may "
                "be paid for ({twice:,} of them were answered twice)",
                again,
                twice=fleet.get("paid_twice", 0),
            )
        )
    for name, reason in fleet.get("left_out", {}).items():
        rows.append(tr("worker {name} was left out: {reason}", name=name, reason=reason))
    return rows
