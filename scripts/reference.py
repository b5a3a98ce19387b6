"""Write the reference pages from the code.

With `--check` nothing is written; what is not current is named, and the exit code is 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt4batch.cli import COMMANDS, module_of
from gpt4batch.cli.flags import PANELS, environment_name
from gpt4batch.settings import Flag, flags_of
from gpt4batch.words import Message, catalogue, tr

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, CHINESE = 0, 1
PAGES = {ENGLISH: ROOT / "docs/en/reference.md", CHINESE: ROOT / "docs/zh/reference.md"}

HEAD = (("Flag", "Default", "What it does"), ("参数", "默认值", "说明"))
ENVIRONMENT = ("Environment", "环境变量")
CHOICES = ("One of {}.", "可选：{}。")
NO_TABLE = ("It has no flags.", "没有参数。")
OTHERS = ("Others", "其他")
TITLE = ("Reference of the commands", "命令参考")
INTRODUCTION = (
    (
        "This page is made from the code by `make reference`. Flags parse as in Go's pflag: `-f`, "
        "`-f=true`, `-g30`, `-g=30`, `--goroutine 30`; hyphens and underscores in long names are "
        "one and the same. A flag on the command line wins over its environment variable. "
        "`--help` shows the flags that most people need, `--help-all` all of them."
    ),
    (
        "本页由 `make reference` 从代码生成。参数写法与 Go 的 pflag 一致：`-f`、`-f=true`、`-g30`、"
        "`-g=30`、`--goroutine 30`；长参数名中的连字符与下划线等价。命令行参数优先于环境变量。"
        "`--help` 显示常用参数，`--help-all` 显示全部。"
    ),
)


def in_language(text: str, language: int) -> str:
    """Return a message in one of the languages."""
    message = text if isinstance(text, Message) else tr(text)
    return message.in_language(catalogue("zh" if language == CHINESE else ""))


def text_of(default: Any, spec: Flag) -> str:
    """Return a default as it is written on the command line, or nothing where it is empty."""
    if spec.kind is bool:
        return f"`{str(default).lower()}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    return f"`{default}`" if default not in ("", ()) and not spec.argument else ""


def names_of(spec: Flag) -> str:
    """Return the names of a flag, the short one first."""
    if spec.argument:
        return f"`{spec.long.upper()}`"
    return (f"`-{spec.short}`, " if spec.short else "") + f"`--{spec.long}`"


def meaning_of(spec: Flag, language: int) -> str:
    """Return what a flag does, with the words that it takes."""
    text = in_language(spec.help, language)
    if spec.choices:
        text += " " + CHOICES[language].format(", ".join(f"`{word}`" for word in spec.choices))
    return text.replace("|", "\\|")


def table(settings: type, language: int, panel: str | None = None, *, full: bool = False) -> str:
    """Return the flags of a command, or those of one panel, as a Markdown table."""
    head = [*HEAD[language]]
    if full:
        head.insert(1, ENVIRONMENT[language])
    rows = [head, ["---"] * len(head)]
    for _, default, spec in flags_of(settings):
        if panel is not None and spec.panel != panel:
            continue
        row = [names_of(spec), text_of(default, spec), meaning_of(spec, language)]
        if full:
            name = "" if spec.argument else environment_name(spec)
            row.insert(1, name and f"`{name}`")
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def panels_of(settings: type) -> list[str]:
    """Return the panels of a command's flags, in their order."""
    return list(dict.fromkeys(spec.panel for _, _, spec in flags_of(settings)))


def page(language: int) -> str:
    """Return the reference page."""
    parts = [f"# {TITLE[language]}\n", INTRODUCTION[language] + "\n"]
    for name in COMMANDS:
        module = module_of(name)
        settings: Any = module.SETTINGS
        parts += [f"## {name}\n", in_language(module.HELP, language) + "\n"]
        panels = panels_of(settings)
        if not panels:
            parts.append(NO_TABLE[language] + "\n")
        for panel in panels:
            if len(panels) > 1:
                title = PANELS.get(panel, OTHERS[language])
                parts.append(f"### {name}: {in_language(title, language)}\n")
            parts.append(table(settings, language, panel, full=True))
    return "\n".join(parts)


def wanted() -> Iterator[tuple[Path, str]]:
    """Yield each page, and what it has to say."""
    for language in (ENGLISH, CHINESE):
        yield PAGES[language], page(language)


def stale() -> list[Path]:
    """Return the files that are not current."""
    return [path for path, text in wanted() if not path.exists() or path.read_text() != text]


def main() -> int:
    """Write what is not current, or name it if asked to check."""
    check = "--check" in sys.argv[1:]
    old = stale()
    for path, text in wanted():
        if path not in old:
            continue
        print(f"{path.relative_to(ROOT)}: {'not current: run make reference' if check else 'made'}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
