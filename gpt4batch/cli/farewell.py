"""The end of a run in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.cli.flags import say
from gpt4batch.cli.units import counted, duration, size
from gpt4batch.lines.steering import printable

if TYPE_CHECKING:
    from gpt4batch.batch.summary import Summary

SHOWN_GROUPS = 10


def farewell(summary: Summary) -> str:
    """Return what came of a run, what failed and why, where the files are, and what to run next."""
    rows = [_lines(summary), *_calls(summary), *_failures(summary), *_files(summary)]
    rows += _fleet(summary.fleet)
    rows += [
        f"{name}{value}"
        for name, value in (
            (say("stopped: ", "已停止: "), summary.stopped),
            (say("go on with: ", "续跑命令: "), summary.next),
        )
        if value
    ]
    return printable("\n".join(rows))


def _lines(summary: Summary) -> str:
    row = f"{summary.done:,}/{summary.lines:,}" + say(" lines done", " 行完成")
    if before := summary.done_before:
        row += say(f" ({before:,} of them before this run)", f" (其中{before:,}行在此前完成)")
    if failed := summary.failed:
        row += say(f", {failed:,} failed", f", {failed:,} 行失败")
    if left := summary.not_run:
        row += say(f", {left:,} not run", f", {left:,} 行未运行")
    return row + say(f" in {duration(summary.seconds)}", f",用时{duration(summary.seconds)}")


def _calls(summary: Summary) -> list[str]:
    chats, again, ups = summary.chats, summary.retries, summary.uploads
    row = say(counted(chats, "chat call", "chat calls"), f"{chats:,} 次对话调用")
    if ups:
        row += say(f", {counted(ups, 'upload', 'uploads')}", f", {ups:,} 次上传")
    if again:
        row += say(f"; {again:,} of them tries again", f"; 其中{again:,}次为重试")
    if lost := summary.unanswered:
        row += say(
            f"; {counted(lost, 'chat', 'chats')} without a reply, which may be paid for",
            f"; {lost:,} 次对话没有收到应答, 可能已计费",
        )
    if killed := summary.killed_in_flight:
        row += say(
            f"; at most {counted(killed, 'chat', 'chats')} without a reply when an earlier run was "
            "killed, which may be paid for too",
            f"; 此前的运行被强制结束时至多有{killed:,}次对话没有收到应答, 可能也已计费",
        )
    in_all = summary.chats_in_all
    if in_all is not None and in_all > chats:
        row += say(
            f"; at least {in_all:,} chat calls with the earlier runs",
            f"; 连同此前的运行至少{in_all:,}次对话调用",
        )
    return [row, *_latency(summary.latency), *_tokens(summary)]


def _tokens(summary: Summary) -> list[str]:
    """Return what the calls took, where answers tell it, and how many were cut short."""
    rows, used, in_all = [], summary.tokens, summary.tokens_in_all
    if used:
        spent, more = f"{used['input']:,} + {used['output']:,}", ""
        row = say(f"tokens: {spent} (in + out)", f"token用量: {spent}(输入 + 输出)")
        for name, english, chinese in (
            ("cached", "cached", "命中缓存"),
            ("reasoning", "reasoning", "推理"),
        ):
            if used[name]:
                row += say(f", {used[name]:,} {english}", f",{chinese} {used[name]:,}")
        if summary.cost is not None:
            each = summary.cost / max(summary.chats, 1)
            row += say(
                f"; cost {summary.cost:.4f} ({each:.6f} a call)", f";费用 {summary.cost:.4f}"
            )
        if in_all != used:
            total = f"{in_all['input']:,} + {in_all['output']:,}"
            more = "" if summary.cost_in_all is None else f" ({summary.cost_in_all:.4f})"
            row += say(f"; with the earlier runs {total}{more}", f";连同此前的运行 {total}{more}")
        rows.append(row)
    if summary.finishes:
        ended = ", ".join(f"{name} {count:,}" for name, count in sorted(summary.finishes.items()))
        rows.append(say(f"answers that ended early: {ended}", f"提前结束的应答: {ended}"))
    return rows


def _latency(latency: dict[str, float]) -> list[str]:
    if not latency:
        return []
    spread = [(name.removeprefix("p"), duration(seconds)) for name, seconds in latency.items()]
    english = ", ".join(f"{share} % within {time}" for share, time in spread)
    chinese = ", ".join(f"{share}%在{time}内" for share, time in spread)
    return [say(f"answers came: {english}", f"应答耗时: {chinese}")]


def _failures(summary: Summary) -> list[str]:
    groups = sorted(summary.failures, key=lambda group: -group["count"])
    rows = [_failure(group) for group in groups[:SHOWN_GROUPS]]
    more = groups[SHOWN_GROUPS:]
    if more:
        lines = sum(group["count"] for group in more)
        rows.append(
            say(
                f"  {lines:,} × {len(more)} more causes; --summary FILE has them all",
                f"  {lines:,} × 另有{len(more)}种原因,详见 --summary 文件",
            )
        )
    return [say("failed, by cause:", "失败原因:"), *rows] if rows else []


def _failure(group: dict[str, Any]) -> str:
    shown = [str(example) for example in group["examples"]]
    if group["count"] > len(shown):
        shown.append("…")
    message = " ".join(group["message"].split())
    code = str(group["code"])
    # 501 is what a failure without a status is written as; many messages begin with their status.
    status = "" if code == "501" or message.startswith(code) else f" {code}"
    return f"  {group['count']:,} × {group['stage']}{status}: {message} (id {', '.join(shown)})"


def _files(summary: Summary) -> list[str]:
    found = counted(summary.downloads, "file", "files")
    files = say(found, f"{summary.downloads:,}个文件")
    where = summary.download_dir or say("with the workers", "在worker处")
    downloads = f"{where} ({files}, {size(summary.download_bytes)})"
    return [
        f"{name}{value}"
        for name, value in (
            (say("output: ", "输出: "), summary.out),
            (say("earlier output, moved: ", "原输出已移至: "), summary.moved_to),
            (say("downloads: ", "下载: "), downloads if summary.downloads else ""),
            ("NSQ: ", _nsq(summary)),
        )
        if value
    ]


def _nsq(summary: Summary) -> str:
    if not summary.nsq_spool:
        return ""
    text = say(f"{summary.nsq_sent:,} published", f"已发布{summary.nsq_sent:,}")
    if left := summary.nsq_left:
        spool = summary.nsq_spool
        text += say(
            f"; {left:,} wait in {spool}, the next run with -n sends them",
            f"; {left:,}条保存在{spool},下次以-n运行时发送",
        )
    if lost := summary.nsq_lost:
        text += say(f"; {lost:,} did not fit and are in the output only", f"; {lost:,}条仅在输出中")
    return text


def _fleet(fleet: dict[str, Any]) -> list[str]:
    """Return what a fleet may have paid for twice, and which workers were of no use."""
    rows = []
    if again := fleet.get("asked_again"):
        twice = fleet.get("paid_twice", 0)
        rows.append(
            say(
                f"{counted(again, 'ask was', 'asks were')} asked again: the call before was cut off"
                f" with its worker and may be paid for ({twice:,} of them were answered twice)",
                f"{again:,} 次提问被重发: 之前的调用随worker中断, 可能已计费"
                f"(其中{twice:,}次得到两个应答)",
            )
        )
    for name, reason in fleet.get("left_out", {}).items():
        rows.append(say(f"worker {name} was left out: {reason}", f"worker {name} 已停用: {reason}"))
    return rows
