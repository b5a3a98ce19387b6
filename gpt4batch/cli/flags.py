"""The pflag ways: argv as the original takes it, rewritten to what typer parses.

`-f`, `-f=true`, `--fix=false`, `-g30`, `-g=30`, `-fn` and underscores or hyphens in long names all
become `--long=value`, so that typer sees one form only.
"""

from __future__ import annotations

import inspect
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpt4batch.errors import UsageError
from gpt4batch.settings import Flag, flags_of
from gpt4batch.words import say, spoken, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TRUE = {"1", "t", "true"}
FALSE = {"0", "f", "false"}

PANELS = {
    "files": tr("Input and output"),
    "pace": tr("Pace and budget"),
    "service": tr("Service"),
    "fetching": tr("Downloads"),
    "snapshots": tr("Snapshots"),
    "queue": tr("NSQ and fleet"),
    "logging": tr("Progress and log"),
    "openai": tr("The dialect openai"),
    "faults": tr("Faults to rehearse"),
}


class Parsed:
    """The type of a flag whose value a parser of ours reads."""


def parse_switch(value: Any) -> bool:
    """Read a boolean as Go does: 1, 0, t, f, true, false, in any case."""
    text = str(value).strip().lower()
    if text in TRUE or text in FALSE:
        return text in TRUE
    raise typer.BadParameter(say("{value!r} is not true or false", value=value))


def parse_number(value: Any) -> float:
    """Read a rate or a time: whole or with a fraction."""
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(say("{value!r} is not a number", value=value)) from None


def parse_whole(value: Any) -> int:
    """Read a whole number."""
    try:
        return int(value)
    except ValueError:
        raise typer.BadParameter(say("{value!r} is not a whole number", value=value)) from None


READERS: dict[type, Callable[[Any], Any]] = {
    bool: parse_switch,
    float: parse_number,
    int: parse_whole,
}


def normal(name: str) -> str:
    """Return a long name in the one spelling used for comparing."""
    return name.replace("_", "-")


def rewrite(argv: Iterable[str], flags: Iterable[Flag]) -> list[str]:
    """Rewrite the words after a command's name to `--long=value` forms.

    Words that are not flags pass through; so does everything after `--`, and what is not known,
    which typer then refuses with the nearest name.
    """
    table = list(flags)
    longs = {normal(item.long): item for item in table if not item.argument}
    shorts = {item.short: item for item in table if item.short}
    words = iter(argv)
    out: list[str] = []
    for word in words:
        if word == "--":
            return [*out, word, *words]
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            spec = longs.get(normal(name))
            given = value if equals else None
            out.append(_assign(spec, given, words, f"--{name}") if spec else word)
        elif word.startswith("-") and len(word) > 1:
            out += _bundle(word, shorts, words)
        else:
            out.append(word)
    return out


def _bundle(word: str, shorts: dict[str, Flag], words: Iterable[str]) -> list[str]:
    out: list[str] = []
    rest = word[1:]
    while rest:
        if rest == "h":
            return [*out, "--help"]
        spec = shorts.get(rest[0])
        if spec is None:
            return [*out, f"-{rest}"]
        letter, rest = rest[0], rest[1:]
        if spec.kind is bool and not rest.startswith("="):
            out.append(f"--{spec.long}=true")
            continue
        value = rest.removeprefix("=") if rest else None
        return [*out, _assign(spec, value, words, f"-{letter}")]
    return out


def _assign(spec: Flag, value: str | None, words: Iterable[str], shown: str) -> str:
    if value is None and spec.kind is bool:
        value = "true"
    if value is None:
        value = next(iter(words), None)
    if value is None:
        raise UsageError(tr("{flag} needs a value", flag=shown))
    return f"--{spec.long}={value}"


METAVARS = {bool: "", float: "NUMBER", int: "N", str: "TEXT", tuple: "TEXT"}
"""What stands for the value of a flag that does not say it itself; a switch needs none."""


def command_of(
    settings: type, action: Callable[[Any], None], *, brief: bool = False
) -> Callable[..., None]:
    """Return a function that typer can register: a parameter a flag, called with the settings.

    Args:
        settings: The record.
        action: What is called with it.
        brief: The help shows the common flags only.
    """

    def command(**values: Any) -> None:
        for name, _, spec in flags_of(settings):
            if spec.kind is tuple and spec.env:
                given = values[name] or os.environ.get(spec.env, "").splitlines()
                values[name] = tuple(text for text in given if text.strip())
        action(settings(**{name: value for name, value in values.items() if value is not None}))

    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_argument_default(default, spec),
            annotation=_annotation(spec, hidden=brief and not spec.common),
        )
        for name, default, spec in flags_of(settings)
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {item.name: item.annotation for item in parameters}
    command.__doc__ = action.__doc__
    return command


def environment_name(spec: Flag) -> str:
    """Return the environment variable that sets a flag; of a list few have one, a line an item."""
    if spec.kind is tuple:
        return spec.env
    return spec.env or "GPT4BATCH_" + spec.long.upper().replace("-", "_")


def _argument_default(default: Any, spec: Flag) -> Any:
    if spec.kind is bool:
        return "true" if default else "false"
    return f"{default:g}" if spec.kind is float else default


def _annotation(spec: Flag, *, hidden: bool = False) -> Any:
    text = spoken(tr(spec.help))
    if spec.argument:
        if spec.kind is tuple:
            many = typer.Argument(help=text, show_default=False, metavar=f"{spec.long.upper()}...")
            return Annotated[list[str], many]
        return Annotated[spec.kind, typer.Argument(help=text, show_default=False)]
    names = [f"-{spec.short}"] if spec.short else []
    names.append(f"--{spec.long}")
    panel = PANELS.get(spec.panel)
    shown: dict[str, Any] = {
        "help": text,
        "envvar": None if spec.kind is tuple else environment_name(spec),
        "show_envvar": False,
        "rich_help_panel": spoken(panel) if panel else None,
        "hidden": hidden,
        "metavar": "|".join(spec.choices) or spec.metavar or METAVARS[spec.kind],
    }
    kind = spec.kind
    if reader := READERS.get(spec.kind):
        kind, shown["parser"] = Parsed, reader
    if spec.kind is tuple:
        kind, shown["show_default"] = list[str], False
    return Annotated[kind, typer.Option(*names, **shown)]


def interactive() -> bool:
    """Return whether a person sits at the terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def from_environment(settings: type) -> dict[str, Any]:
    """Return what the environment sets of a record that has no command of its own."""
    found: dict[str, Any] = {}
    for name, _, spec in flags_of(settings):
        text = os.environ.get(environment_name(spec), "")
        if not text or spec.secret:
            continue
        try:
            found[name] = READERS.get(spec.kind, str)(text)
            settings(**{name: found[name]})
        except (UsageError, typer.BadParameter) as error:
            raise UsageError(
                tr("{variable}: {text}", variable=environment_name(spec), text=error)
            ) from None
    return found
