"""The command `convert`: tables and folders of pictures become a batch."""

from __future__ import annotations

import shlex
import sys

from gpt4batch.cli.flags import say
from gpt4batch.cli.streams import tell
from gpt4batch.cli.units import counted
from gpt4batch.convert.settings import STREAM, ConvertSettings
from gpt4batch.lines.steering import printable

SETTINGS = ConvertSettings
HELP = (
    "Make a batch of tables (CSV, TSV, XLSX) or of pictures; the whole file is written or none.",
    "将表格(CSV、TSV、XLSX)或图片转换为批次文件;要么完整写入,要么不写.",
)


def action(settings: ConvertSettings) -> None:
    """Convert, and say what was taken for what."""
    from gpt4batch.convert.batch import batch_of
    from gpt4batch.convert.whole_file import refuse_taken, whole_file
    from gpt4batch.lines import rawjson

    if settings.out != STREAM:
        refuse_taken(settings.out, settings.files, force=settings.force)
    batch = batch_of(settings, say("Describe the picture", "描述下图片"))
    if settings.out == STREAM:
        shown = rawjson.escaped_controls if sys.stdout.isatty() else bytes
        for line in batch.lines:
            sys.stdout.buffer.write(shown(line) + b"\n")
        sys.stdout.buffer.flush()
    else:
        with whole_file(settings.out) as file:
            file.writelines(line + b"\n" for line in batch.lines)
    for note in batch.notes:
        tell(printable(f"gpt4batch: {note}"))
    count, lines = batch.questions, len(batch.lines)
    said = say(
        f"{counted(count, 'question', 'questions')} in {counted(lines, 'line', 'lines')}",
        f"{lines:,} 行, 共 {count:,} 个提问",
    )
    if settings.out != STREAM:
        command = shlex.join(["gpt4batch", "check", "-i", settings.out])
        said = f"{settings.out}: {said}" + say(f"; check them: {command}", f"; 检查: {command}")
    tell(printable(said))
