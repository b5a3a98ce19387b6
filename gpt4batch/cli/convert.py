"""The command `convert`: tables and folders of pictures become a batch."""

from __future__ import annotations

import shlex
import sys

from gpt4batch.cli.streams import tell
from gpt4batch.convert.settings import STREAM, ConvertSettings
from gpt4batch.lines.steering import printable
from gpt4batch.words import counted, say, spoken, tr

SETTINGS = ConvertSettings
HELP = tr(
    "Make a batch of tables (CSV, TSV, XLSX) or of pictures; the whole file is written or none."
)
EXAMPLES = (
    "gpt4batch convert questions.csv -o questions.jsonl",
    "gpt4batch convert photos -o photos.jsonl --ask 'What is in it?'",
)


def action(settings: ConvertSettings) -> None:
    """Convert, and say what was taken for what."""
    from gpt4batch.convert.batch import batch_of
    from gpt4batch.convert.whole_file import refuse_taken, whole_file
    from gpt4batch.lines import rawjson

    if settings.out != STREAM:
        refuse_taken(settings.out, settings.files, force=settings.force)
    batch = batch_of(settings, say("Describe the picture"))
    if settings.out == STREAM:
        shown = rawjson.escaped_controls if sys.stdout.isatty() else bytes
        for line in batch.lines:
            sys.stdout.buffer.write(shown(line) + b"\n")
        sys.stdout.buffer.flush()
    else:
        with whole_file(settings.out) as file:
            file.writelines(line + b"\n" for line in batch.lines)
    for note in batch.notes:
        tell(printable(f"gpt4batch: {spoken(note)}"))
    made = tr(
        "{questions} in {lines}",
        questions=counted("{n:,} question", "{n:,} questions", batch.questions),
        lines=counted("{n:,} line", "{n:,} lines", len(batch.lines)),
    )
    if settings.out != STREAM:
        command = shlex.join(["gpt4batch", "check", "-i", settings.out])
        made = tr(
            "{path}: {made}; check them: {command}", path=settings.out, made=made, command=command
        )
    tell(printable(spoken(made)))
