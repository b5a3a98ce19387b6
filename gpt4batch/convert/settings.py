"""What `convert` and `results` were asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpt4batch.errors import UsageError
from gpt4batch.settings import check, flag

STREAM = "-"
"""Standard input or output, in place of a file."""

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".xlsx": "xlsx",
    ".md": "markdown",
    ".markdown": "markdown",
}


def _flag(command: str, default: Any, names: str, en: str, zh: str, **more: Any) -> Any:
    """Declare a flag whose variable is the command's own: those of batchsvc mean other things."""
    name = names.partition("/")[0].upper().replace("-", "_")
    return flag(default, names, en, zh, env=f"GPT4BATCH_{command}_{name}", **more)


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
        "表格(CSV、TSV、XLSX; - 为标准输入)、图片、图片文件夹;或提问行与OpenAI批次文件(JSONL),"
        "两者互相转换.",
        argument=True,
    )
    out: str = _convert(
        STREAM,
        "out/o",
        "Batch to write; - is standard output.",
        "要写入的批次文件; - 为标准输出.",
    )
    id: str = _convert(
        "",
        "id",
        "Column of the ids. Left empty: id or 编号, where there is one.",
        "编号所在的列,默认为 id 或 编号.",
    )
    content: str = _convert(
        "",
        "content",
        "Column of the questions. Left empty: content, prompt, question, 问题, 内容 or 提问.",
        "提问所在的列,默认为 content、prompt、question、问题、内容 或 提问.",
    )
    image: str = _convert(
        "",
        "image",
        "Column of pictures' paths, several separated by ; or line breaks. Left empty: images, "
        "image or 图片.",
        "图片路径所在的列,多个以 ; 或换行分隔,默认为 images、image 或 图片.",
    )
    file: str = _convert(
        "",
        "file",
        "Column of other files' paths. Left empty: files, file or 文件.",
        "其他文件路径所在的列,默认为 files、file 或 文件.",
    )
    model: str = _convert(
        "",
        "model",
        "Column of the models. Left empty: model or 模型.",
        "模型所在的列,默认为 model 或 模型.",
    )
    gizmo_id: str = _convert(
        "",
        "gizmo-id",
        "Column of the GPTs. Left empty: gizmo_id.",
        "GPTs 所在的列,默认为 gizmo_id.",
    )
    system: str = _convert(
        "",
        "system",
        "Column of what is said first, for --api openai; none is taken that is not named.",
        "系统提示所在的列,用于 --api openai; 未指定则不取.",
    )
    conversation: str = _convert(
        "",
        "conversation",
        "Column that is equal in all rows of a conversation. Left empty: conversation, 会话 or "
        "对话; else rows with the same id, one after the other.",
        "同一对话各行取值相同的列,默认为 conversation、会话 或 对话; 没有时为连续且编号相同的行.",
    )
    sheet: str = _convert(
        "",
        "sheet",
        "Sheet of a workbook. Left empty: the first one that is not hidden.",
        "工作表名称,默认为第一个未隐藏的工作表.",
    )
    encoding: str = _convert(
        "",
        "encoding",
        "Encoding of CSV and TSV. Left empty: it is found out.",
        "CSV和TSV的编码,默认自动识别.",
    )
    delimiter: str = _convert(
        "",
        "delimiter",
        "What separates the columns of a CSV, such as ; or tab. Left empty: it is found out.",
        "CSV的列分隔符,如 ; 或 tab, 默认自动识别.",
    )
    ask: tuple[str, ...] = flag(
        (),
        "ask",
        "What to ask about each picture; given more than once, a conversation.",
        "对每张图片的提问;多次给出则为一段对话.",
    )
    lossy: bool = _convert(
        False,
        "lossy",
        "Leave out what a batch file, or a line of asks, has no place for, and say what that was.",
        "舍弃目标格式无法表达的内容,并说明舍弃了什么.",
    )
    force: bool = _convert(False, "force", "Replace a batch that is there.", "覆盖已有的批次文件.")

    def __post_init__(self) -> None:
        """Refuse what cannot be converted."""
        check(self)
        if not self.files:
            raise UsageError("convert: name a table, such as: gpt4batch convert questions.csv")
        if len(self.delimiter) > 1 and self.delimiter not in ("tab", "\\t"):
            raise UsageError(f"--delimiter {self.delimiter!r}: must be one character, or tab")
        if self.delimiter in ('"', "\n", "\r"):
            raise UsageError(f"--delimiter {self.delimiter!r}: cannot separate columns")

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
        "运行的输出文件,完成与否均可; - 为标准输入.",
        argument=True,
    )
    out: str = _results(
        STREAM,
        "out/o",
        "Table to write; - is standard output.",
        "要写入的表格; - 为标准输出.",
    )
    format: str = _results(
        "",
        "format",
        "Format of the table. Left empty: by the ending of -o, else CSV.",
        "表格格式,默认由 -o 的后缀决定,否则为CSV.",
        choices=("", "csv", "tsv", "xlsx", "markdown"),
    )
    columns: str = _results(
        DEFAULT_COLUMNS,
        "columns",
        "Columns: line, id, ask_id, ask, attachments, answer, files, model, seconds, attempts, "
        "state, stage, code, error, extra or extra.NAME.",
        "列: line, id, ask_id, ask, attachments, answer, files, model, seconds, attempts, state, "
        "stage, code, error, extra 或 extra.NAME.",
    )
    only: str = _results(
        "all",
        "only",
        "Which lines.",
        "只输出哪些行.",
        choices=("all", "done", "failed", "not-run"),
    )
    failed: bool = _results(
        False,
        "failed",
        "List the failed lines instead: place, id, stage, code and cause, separated by tabs.",
        "改为列出失败的行: 位置、编号、阶段、代码和原因,以制表符分隔.",
    )
    bom: bool = _results(
        True,
        "bom",
        "Begin a CSV file with a byte order mark, which Excel needs.",
        "CSV文件以字节顺序标记开头,供Excel识别.",
    )
    guard: bool = _results(
        True,
        "guard",
        "Put ' before what a spreadsheet would take for a formula, in CSV and TSV.",
        "在CSV和TSV中,在会被电子表格当作公式的内容前加 ' .",
    )
    force: bool = _results(False, "force", "Replace a table that is there.", "覆盖已有的表格.")

    def __post_init__(self) -> None:
        """Refuse what no table can be made of."""
        check(self)
        if not self.output:
            raise UsageError("results: name an output, such as: gpt4batch results out.jsonl")
        if not self.format and self.out != STREAM and self.form not in FORMATS.values():
            raise UsageError(
                f"-o {self.out}: ends in none of {', '.join(FORMATS)}: name its --format"
            )

    @property
    def form(self) -> str:
        """Return the format of the table."""
        if self.format:
            return self.format
        if self.out == STREAM:
            return "csv"
        return next((form for end, form in FORMATS.items() if self.out.lower().endswith(end)), "")
