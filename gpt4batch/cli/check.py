"""The command `check`: what can be known of a run before its first paid call."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import typer

from gpt4batch.cli.flags import named, say
from gpt4batch.errors import UsageError
from gpt4batch.settings import LOGGING, Settings, flag

if TYPE_CHECKING:
    from gpt4batch.batch.preflight import Finding, Report
    from gpt4batch.batch.survey import Plan

HELP = (
    "Check a batch before it is paid for, and say what it will cost; writes and calls nothing.",
    "付费调用前检查批量任务,并预计调用次数和时间;不写文件,不调用服务.",
)
SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings(Settings):
    """The settings of the run that is checked."""

    json: bool = flag(
        False, "json", "Print the report as JSON.", "以JSON输出检查结果.", panel=LOGGING
    )

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


def words(report: Report, settings: Settings) -> list[str]:
    """Return the report, a line a row."""
    rows = _plan(report.plan, settings) if report.plan else []
    for level, title in (
        ("refused", say("refused, nothing would be called:", "将被拒绝,不会发出调用:")),
        ("fails", say("these lines would fail:", "以下各行将会失败:")),
        ("note", say("worth a look:", "请留意:")),
    ):
        found = [finding for finding in report.findings if finding.level == level]
        if found:
            rows += [title, *_listed(found)]
    verdicts = {
        0: say("ready to run", "可以运行"),
        1: say("can run; some lines would fail", "可以运行,但部分行会失败"),
    }
    return [*rows, verdicts.get(report.exit_code, say("would not run", "无法运行"))]


def _listed(found: list[Finding]) -> list[str]:
    """Return the first findings about each thing, so that many of one kind hide no other."""
    about: Counter[str] = Counter()
    shown = []
    for finding in found:
        about[finding.about] += 1
        if about[finding.about] <= SHOWN:
            shown.append(finding)
    rows = [f"  {finding.about}: {finding.message}" for finding in shown]
    if more := len(found) - len(shown):
        rows.append(say(f"  and {more:,} more; --json has them all", f"  另有{more:,}条,见 --json"))
    return rows


def _tokens(plan: Plan) -> str:
    """Return what the calls may take; nothing at a service that does not tell."""
    if not plan.tokens_in:
        return ""
    assumed = plan.tokens_from == "assumed"
    basis = (
        say("by the length of the texts: half or twice as many", "按文本长度估计, 可能差一倍")
        if assumed
        else say("by earlier answers", "按此前的应答估计")
    )
    cost = "" if plan.cost is None else say(f", cost {plan.cost:.4f}", f", 费用 {plan.cost:.4f}")
    counts = f"{plan.tokens_in:,} + {plan.tokens_out:,}"
    return say(
        f"about {counts} tokens (in + out){cost}, {basis}",
        f"约 {counts} token(输入 + 输出){cost}, {basis}",
    )


def _plan(plan: Plan, settings: Settings) -> list[str]:
    from gpt4batch.cli.units import counted, duration, rough, size

    row = say(
        f"{counted(plan.lines, 'line', 'lines')}: {plan.to_run:,} to run",
        f"{plan.lines:,} 行: {plan.to_run:,} 行待运行",
    )
    if plan.done:
        row += say(f", {plan.done:,} done already", f", {plan.done:,} 行已完成")
    if plan.bad_lines:
        row += say(f", {plan.bad_lines:,} bad", f", {plan.bad_lines:,} 行格式错误")
    chats = say(counted(plan.chats, "chat call", "chat calls"), f"{plan.chats:,} 次对话调用")
    if plan.uploads:
        chats += say(
            f", {counted(plan.uploads, 'upload', 'uploads')}", f", {plan.uploads:,} 次上传"
        )
        chats += f" ({size(plan.upload_bytes)})"
    call = duration(plan.call_seconds)
    basis = {
        "assumed": say(f"assuming {call} a call", f"假定每次调用{call}"),
        "output": say(f"at the {call} a call of the output", f"按输出中每次调用{call}"),
    }[plan.call_seconds_from]
    pace = f"-q {settings.qps:g} -g {settings.goroutine}"
    time = say(
        f"about {rough(plan.seconds)} with {pace}, {basis}",
        f"约{rough(plan.seconds)} ({pace}, {basis})",
    )
    rows = [row, chats, time if plan.chats else "", _tokens(plan)]
    if plan.free_bytes:
        rows.append(
            say(
                f"output about {size(plan.output_bytes)}; {size(plan.free_bytes)} free",
                f"输出约{size(plan.output_bytes)}; 磁盘剩余{size(plan.free_bytes)}",
            )
        )
    return [text for text in rows if text]
