"""What `convert` and `results` were asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpt4batch.errors import UsageError
from gpt4batch.settings import check, flag
from gpt4batch.words import tr

STREAM = "-"
"""Standard input or output, in place of a file."""

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".xlsx": "xlsx",
    ".md": "markdown",
    ".markdown": "markdown",
}


def _flag(command: str, default: Any, names: str, text: str, **more: Any) -> Any:
    """Declare a flag whose variable is the command's own: those of batchsvc mean other things."""
    name = names.partition("/")[0].upper().replace("-", "_")
    return flag(default, names, text, env=f"GPT4BATCH_{command}_{name}", **more)


def _convert(*given: Any, **more: Any) -> Any:
    return _flag("CONVERT", *given, **more)


def _results(*given: Any, **more: Any) -> Any:
    return _flag("RESULTS", *given, **more)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """What to make a batch of: tables and what their columns are, pictures, or another batch."""

    files: tuple[str, ...] = flag(
        (),
        "files",
        "Tables (CSV, TSV, XLSX; - is standard input), pictures, folders of pictures; or lines of "
        "asks or an OpenAI batch file (JSONL), each of which becomes the other.",
        argument=True,
    )
    out: str = _convert(
        STREAM,
        "out/o",
        "Batch to write; - is standard output.",
    )
    id: str = _convert(
        "",
        "id",
        "Column of the ids. Left empty: id or 编号, where there is one.",
    )
    content: str = _convert(
        "",
        "content",
        "Column of the questions. Left empty: content, prompt, question, 问题, 内容 or 提问.",
    )
    image: str = _convert(
        "",
        "image",
        "Column of pictures' paths, several separated by ; or line breaks. Left empty: images, "
        "image or 图片.",
    )
    file: str = _convert(
        "",
        "file",
        "Column of other files' paths. Left empty: files, file or 文件.",
    )
    model: str = _convert(
        "",
        "model",
        "Column of the models. Left empty: model or 模型.",
    )
    gizmo_id: str = _convert(
        "",
        "gizmo-id",
        "Column of the GPTs. Left empty: gizmo_id.",
    )
    system: str = _convert(
        "",
        "system",
        "Column of what is said first, for --api openai; none is taken that is not named.",
    )
    conversation: str = _convert(
        "",
        "conversation",
        "Column that is equal in all rows of a conversation. Left empty: conversation, 会话 or "
        "对话; else rows with the same id, one after the other.",
    )
    sheet: str = _convert(
        "",
        "sheet",
        "Sheet of a workbook. Left empty: the first one that is not hidden.",
    )
    encoding: str = _convert(
        "",
        "encoding",
        "Encoding of CSV and TSV. Left empty: it is found out.",
    )
    delimiter: str = _convert(
        "",
        "delimiter",
        "What separates the columns of a CSV, such as ; or tab. Left empty: it is found out.",
    )
    ask: tuple[str, ...] = flag(
        (),
        "ask",
        "What to ask about each picture; given more than once, a conversation.",
    )
    lossy: bool = _convert(
        False,
        "lossy",
        "Leave out what a batch file, or a line of asks, has no place for, and say what that was.",
    )
    force: bool = _convert(False, "force", "Replace a batch that is there.")

    def __post_init__(self) -> None:
        """Refuse what cannot be converted."""
        check(self)
        if not self.files:
            raise UsageError(tr("convert: name a table, such as: gpt4batch convert questions.csv"))
        if len(self.delimiter) > 1 and self.delimiter not in ("tab", "\\t"):
            raise UsageError(
                tr(
                    "--delimiter {delimiter!r}: must be one character, or tab",
                    delimiter=self.delimiter,
                )
            )
        if self.delimiter in ('"', "\n", "\r"):
            raise UsageError(
                tr("--delimiter {delimiter!r}: cannot separate columns", delimiter=self.delimiter)
            )

    def columns(self) -> dict[str, str]:
        """Return the columns that were named, by their flags."""
        return {
            "id": self.id,
            "content": self.content,
            "image": self.image,
            "file": self.file,
            "model": self.model,
            "gizmo-id": self.gizmo_id,
            "system": self.system,
            "conversation": self.conversation,
        }


DEFAULT_COLUMNS = "id,ask,answer,state,error"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsSettings:
    """The output to make a table of, and what the table shows."""

    output: str = flag(
        "",
        "output",
        "Output of a run, finished or not; - is standard input.",
        argument=True,
    )
    out: str = _results(
        STREAM,
        "out/o",
        "Table to write; - is standard output.",
    )
    format: str = _results(
        "",
        "format",
        "Format of the table. Left empty: by the ending of -o, else CSV.",
        choices=("", "csv", "tsv", "xlsx", "markdown"),
    )
    columns: str = _results(
        DEFAULT_COLUMNS,
        "columns",
        "Columns: line, id, ask_id, ask, attachments, answer, files, model, seconds, attempts, "
        "state, stage, code, error, extra or extra.NAME.",
    )
    only: str = _results(
        "all",
        "only",
        "Which lines.",
        choices=("all", "done", "failed", "not-run"),
    )
    failed: bool = _results(
        False,
        "failed",
        "List the failed lines instead: place, id, stage, code and cause, separated by tabs.",
    )
    bom: bool = _results(
        True,
        "bom",
        "Begin a CSV file with a byte order mark, which Excel needs.",
    )
    guard: bool = _results(
        True,
        "guard",
        "Put ' before what a spreadsheet would take for a formula, in CSV and TSV.",
    )
    force: bool = _results(False, "force", "Replace a table that is there.")

    def __post_init__(self) -> None:
        """Refuse what no table can be made of."""
        check(self)
        if not self.output:
            raise UsageError(tr("results: name an output, such as: gpt4batch results out.jsonl"))
        if not self.format and self.out != STREAM and self.form not in FORMATS.values():
            raise UsageError(
                tr(
                    "-o {out}: ends in none of {endings}: name its --format",
                    out=self.out,
                    endings=", ".join(FORMATS),
                )
            )

    @property
    def form(self) -> str:
        """Return the format of the table."""
        if self.format:
            return self.format
        if self.out == STREAM:
            return "csv"
        return next((form for end, form in FORMATS.items() if self.out.lower().endswith(end)), "")
