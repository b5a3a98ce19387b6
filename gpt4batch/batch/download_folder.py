"""Where the downloads of a run go when nobody said where."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpt4batch import disk
from gpt4batch.journal.log import is_stream
from gpt4batch.journal.source import STDIN, Source
from gpt4batch.words import tr

if TYPE_CHECKING:
    from gpt4batch.settings import Settings

MIXED = tr("downloads go to %s, the input's folder; -d DIR keeps them apart")


def download_folder(settings: Settings, source: Source) -> Path:
    """Return where downloads go; those of a rehearsal stay apart from the user's own files."""
    if settings.download_dir:
        return Path(settings.download_dir)
    if not settings.mock:
        return source.folder
    out = Path(settings.out).absolute()
    if settings.out == STDIN or disk.descriptor_of(settings.out) is not None or is_stream(out):
        out = source.folder / source.stem  # beside a stream there is no place for a folder
    return out.with_name(f"{out.stem}.rehearsal")
