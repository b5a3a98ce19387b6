"""What typer says around help and refusals: in the user's language, and what to do about it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from gpt4batch.errors import UsageError
from gpt4batch.words import Message, joined, say, spoken, tr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOUND_BY_TYPER = (
    tr("Arguments"),
    tr("Commands"),
    tr("Error"),
    tr("Options"),
    tr("[default: {}]"),
    tr("Aborted."),
    tr("Try [blue]'{command_path} {help_option}'[/] for help."),
)
"""What typer itself looks up by gettext, in the catalogue that it is lent."""

FLAGS_OF_TYPER = {
    "help": tr("Show this message and exit."),
    "install_completion": tr("Let the shell complete flags and commands."),
    "show_completion": tr("Show what makes the shell complete them."),
    "version": tr("Show the version."),
}
"""Its own flags, and what they do."""

NO_OPTION = tr("No such option: {flag}")
TOO_MANY = tr("Got unexpected extra argument(s) ({words})")
SWITCHES = ("1", "t", "true", "0", "f", "false")

SAID_BY_TYPER = (
    tr("No such option: {flag} (Possible options: {flags})"),
    NO_OPTION,
    tr("Invalid value for {flag}: {reason}"),
    tr("Missing option {flag}."),
    tr("Missing argument {name}."),
    tr("Option {flag} does not take a value."),
    tr("Option {flag} requires an argument."),
    TOO_MANY,
    tr("No such command {name}. Did you mean {names}?"),
    tr("No such command {name}."),
    tr("Missing command."),
)
"""What it says in English only: recognised by the template, and said anew."""


def pattern_of(sentence: Message) -> re.Pattern[str]:
    """Return a pattern that finds the values in a sentence."""
    return re.compile(
        re.sub(r"\\{(\w+)\\}", r"(?P<\1>.*)", re.escape(sentence.template)), re.DOTALL
    )


def in_our_words(text: str) -> str:
    """Return what typer says as it is shown."""
    for sentence in SAID_BY_TYPER:
        if found := pattern_of(sentence).fullmatch(text):
            return spoken(sentence.filled(**found.groupdict()))
    return text


@contextmanager
def said_anew(context: Any, advice: Callable[[str], str] = lambda _: "") -> Iterator[None]:
    """Say what typer refuses in the block in the user's language, and what may help."""
    try:
        yield
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # the help was asked for, as it were
            raise
        text = error.format_message()
        rows = filter(None, (in_our_words(text), advice(text)))
        (getattr(error, "ctx", None) or context).fail("\n".join(rows))


@contextmanager
def folded_help() -> Iterator[None]:
    """Let help texts go on in the next line wherever one ends: Chinese has no spaces to break at.

    Rich would cut a word that is longer than its column, and to it a Chinese sentence is a word.
    """
    from rich import table

    class Folding(table.Column):
        def __init__(self, *given: Any, **values: Any) -> None:
            super().__init__(*given, **values | {"overflow": "fold"})

    plain = table.Column
    # typer has no setting for it, and every table of its help is made of these.
    table.Column = Folding  # type: ignore[misc]
    try:
        yield
    finally:
        table.Column = plain  # type: ignore[misc]


_variables: ContextVar[dict[str, str]] = ContextVar("variables")
"""The environment variable of each flag that one has set, for the command that is invoked."""


def named(text: str) -> str:
    """Return the text of a refusal; if it begins with a flag, behind the variable that set it."""
    variable = _variables.get({}).get(text.partition(" ")[0])
    return tr("{variable}: {text}", variable=variable, text=text) if variable else text


def _from_variable(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "ENVIRONMENT"


class Framed:
    """Help whose frame is in the user's language, and which is whole in every width."""

    def get_params(self, context: Any) -> list[Any]:
        """Return the flags; those of typer itself get a help that can be read."""
        found: list[Any] = super().get_params(context)  # type: ignore[misc]
        for item in found:
            if item.name in FLAGS_OF_TYPER:
                item.help, item.metavar = spoken(FLAGS_OF_TYPER[item.name]), ""
        return found

    def format_usage(self, context: Any, formatter: Any) -> None:
        """Write the usage line."""
        pieces = " ".join(self.collect_usage_pieces(context))  # type: ignore[attr-defined]
        formatter.write_usage(context.command_path, pieces, prefix=say("Usage: "))

    def format_help(self, *given: Any) -> None:
        """Write the help."""
        with folded_help():
            super().format_help(*given)  # type: ignore[misc]


class Command(Framed, TyperCommand):
    """A command that names the variable where one is wrong."""

    def parse_args(self, context: Any, words: list[str]) -> list[str]:
        """Read the words; what the environment holds is not blamed on the flag."""
        given = list(words)
        with said_anew(context, lambda text: self._advice(text, given)):
            try:
                return super().parse_args(context, words)
            except typer.BadParameter as error:
                if error.param and _from_variable(context, error.param.name or ""):
                    flags = " / ".join(error.param.opts)
                    error.param_hint = f"{error.param.envvar} ({flags})"
                raise

    def _advice(self, text: str, given: list[str]) -> str:
        """Return what may be meant by a word too many."""
        found = pattern_of(TOO_MANY).fullmatch(text)
        word = found["words"].split()[0] if found else ""
        before = given[given.index(word) - 1] if word in given[1:] else ""
        if word.lower() in SWITCHES and before.endswith("=true"):
            long = before.removesuffix("=true")
            flag = next((item.opts[0] for item in self.params if long in item.opts), long)
            return say("{flag} takes no separate word: {flag}={word}", flag=flag, word=word)
        if word and any("-i" in item.opts for item in self.params):
            return say("did you mean -i {word}?", word=word)
        return ""

    def invoke(self, context: Any) -> Any:
        """Run the command."""
        _variables.set(
            {
                flag: str(item.envvar)
                for item in self.params
                if _from_variable(context, item.name or "")
                for flag in item.opts
            }
        )
        try:
            return super().invoke(context)
        except UsageError as error:
            error.args = (named(str(error)),)
            raise


class Group(Framed, TyperGroup):
    """The commands together."""

    def parse_args(self, context: Any, words: list[str]) -> list[str]:
        """Read the words before a command."""
        with said_anew(context, self._advice):
            return super().parse_args(context, words)

    def _advice(self, text: str) -> str:
        """Return to which commands a flag belongs that stands before any."""
        found = pattern_of(NO_OPTION).fullmatch(text)
        flag = found["flag"] if found else ""
        names = [
            name
            for name, command in self.commands.items()
            if any(flag in item.opts for item in command.params)
        ]
        if not names:
            return ""
        example = f"gpt4batch {names[0]} {flag}"
        listed = spoken(joined(", ", names))
        return say(
            "{flag} belongs to {names}: {example} …", flag=flag, names=listed, example=example
        )

    def resolve_command(self, context: Any, words: list[str]) -> Any:
        """Find the command."""
        with said_anew(context):
            return super().resolve_command(context, words)
