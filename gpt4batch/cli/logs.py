"""The log: text or JSON lines, on standard error or in a file, never on standard output."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from gpt4batch.cli.streams import tell
from gpt4batch.errors import Gpt4BatchError, UsageError
from gpt4batch.lines.steering import printable
from gpt4batch.words import Message, because, say, spoken, tr

if TYPE_CHECKING:
    from rich.console import Console


class TextFormatter(logging.Formatter):
    """`12:30:01 WARNING text`, in one line a record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        moment = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        text = printable(_text_of(record)).replace("\n", "\n  ")
        if record.exc_info:
            text += "\n" + printable(self.formatException(record.exc_info)).replace("\\n", "\n")
        return f"{moment} {level}{text}"


def _text_of(record: logging.LogRecord) -> str:
    """Return the text of a record as it is shown."""
    template = spoken(record.msg if isinstance(record.msg, Message) else tr(str(record.msg)))
    if not record.args:
        return template
    if isinstance(record.args, Mapping):
        return template % {name: _value_of(value) for name, value in record.args.items()}
    return template % tuple(map(_value_of, record.args))


def _value_of(value: object) -> object:
    return spoken(value) if isinstance(value, Message | Gpt4BatchError) else value


class JsonFormatter(logging.Formatter):
    """`{"time", "level", "logger", "message"}`, a line a record; a call adds its own keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        from gpt4batch.lines import rawjson

        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "call", {})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return rawjson.escaped_controls(rawjson.dumps(entry)).decode()


class FileHandler(logging.FileHandler):
    """Log to a file; one that cannot be written is said once and stops nothing."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Say why the log cannot be written."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            text = say(
                "gpt4batch: --log-file {path}: {reason}; the run goes on without it",
                path=self.baseFilename,
                reason=because(error),
            )
            tell(printable(text))


class StreamHandler(logging.StreamHandler[TextIO]):
    """Log to standard error, as long as it can be written."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore a stream that is full or broken: there is nowhere to say it."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class ConsoleHandler(logging.Handler):
    """Log above the progress bar, which shares the console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        with suppress(OSError):  # the terminal is gone
            self._console.print(
                self.format(record), markup=False, highlight=False, emoji=False, soft_wrap=True
            )


def set_up(level: str, form: str, file: str, console: Console | None) -> logging.Handler:
    """Send the package's log where the flags say, and return the handler to close at the end.

    Raises:
        UsageError: The file cannot be written.
    """
    handler: logging.Handler
    if file:
        try:
            handler = FileHandler(file, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UsageError(
                tr("--log-file {path}: {reason}", path=file, reason=because(error))
            ) from None
    elif console is not None:
        handler = ConsoleHandler(console)
    else:
        handler = StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logger = logging.getLogger("gpt4batch")
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    return handler


def tear_down(handler: logging.Handler) -> None:
    """Stop logging to a handler."""
    logging.getLogger("gpt4batch").removeHandler(handler)
    with suppress(OSError):  # what waits to be written may find no room
        handler.close()
