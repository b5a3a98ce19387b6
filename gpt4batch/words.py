"""What people read, in their language: English in the code and in files, Chinese where one is read.

The English sentence is the msgid of a gettext catalogue; `make words` keeps the catalogues in step.
`tr` makes a `Message`, which *is* its English text: an error that is raised with one writes English
into `iErr`, summaries and JSON logs without anybody's doing. Whoever puts it before a person calls
`spoken`, which finds the sentence in the language of the locale and fills in the same values; a
value may be a message itself. `say` is both at once. Nothing is looked up until it is shown.

A message that is formatted into another text becomes plain English: it goes in as a value instead,
or into `joined`. Log calls keep their `%` templates, which the text log looks up when it prints.
"""

from __future__ import annotations

import gettext
import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DOMAIN = "gpt4batch"
CATALOGUES = Path(__file__).parent / "locale"
CHINESE = "zh"


class Message(str):
    """A sentence in English that can be shown in another language.

    Args:
        english: The whole text.
        template: What is looked up, with the names of its values in braces.
        values: What is filled in. Without any, the template is the text as it stands.
        many: The template for other numbers than one, which go by the value `n`.
    """

    __slots__ = ("many", "template", "values")

    template: str
    values: dict[str, object]
    many: str

    def __new__(
        cls, english: str, template: str, values: dict[str, object], many: str = ""
    ) -> Message:
        """Make the text, which remembers how it was made."""
        text = super().__new__(cls, english)
        text.template, text.values, text.many = template, values, many
        return text

    def __str__(self) -> str:
        """Return the message itself, so that an error's text is still one."""
        return self

    def filled(self, **values: object) -> Message:
        """Return the sentence with its values, where it was made without."""
        return tr(self.template, **values)

    def __add__(self, other: object) -> Message:
        """Return both, one after the other."""
        return joined("", (self, other))

    def __deepcopy__(self, memo: dict[int, object]) -> Message:
        """Return the message itself: it never changes."""
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        """Return what is left of it for another process: its English text."""
        return str, (self[:],)

    def in_language(self, catalogue: gettext.NullTranslations) -> str:
        """Return the text as a catalogue has it."""
        if self.many:
            number = int(str(self.values["n"]))
            template = catalogue.ngettext(self.template, self.many, number)
        else:
            template = catalogue.gettext(self.template)
        if not self.values:
            return template
        return template.format(
            **{name: _in_language(value, catalogue) for name, value in self.values.items()}
        )

    def without(self, hide: Callable[[str], str]) -> Message:
        """Return the message with every text that is filled in passed through `hide`."""
        values = {name: _hidden(value, hide) for name, value in self.values.items()}
        return type(self)(hide(self[:]), self.template, values, self.many)


def _in_language(value: object, catalogue: gettext.NullTranslations) -> object:
    if isinstance(value, BaseException):
        value = str(value)
    return value.in_language(catalogue) if isinstance(value, Message) else value


def _hidden(value: object, hide: Callable[[str], str]) -> object:
    if isinstance(value, BaseException):
        value = str(value)
    if isinstance(value, Message):
        return value.without(hide)
    return hide(value) if isinstance(value, str) else value


class _Row(Message):
    """Several messages in a row; only what is between them is no message."""

    __slots__ = ()

    def in_language(self, catalogue: gettext.NullTranslations) -> str:
        between = self.template and catalogue.gettext(self.template)
        return between.join(str(_in_language(value, catalogue)) for value in self.values.values())


def tr(template: str, /, **values: object) -> Message:
    """Return a sentence in English that is shown in the language of the locale."""
    return Message(template.format(**values) if values else template, template, values)


def counted(one: str, many: str, number: int, /, **values: object) -> Message:
    """Return a sentence with a number `{n}`, in the form that the number asks for."""
    values["n"] = number
    english = (one if number == 1 else many).format(**values)
    return Message(english, one, values, many)


def joined(between: str, parts: Iterable[object]) -> Message:
    """Return messages in a row; each language has its own mark between them."""
    values = {str(place): part for place, part in enumerate(parts)}
    return _Row(between.join(map(str, values.values())), between, values)


def told(text: object) -> Any:
    """Return a text as JSON from which `heard` makes the same message in another process."""
    if isinstance(text, BaseException):
        text = str(text)
    if isinstance(text, Message):
        values = {name: told(value) for name, value in text.values.items()}
        return [isinstance(text, _Row), text[:], text.template, values, text.many]
    return text if isinstance(text, (int, float)) else str(text)


def heard(said: Any) -> Any:
    """Return the message that another process `told`; what it is not is plain text."""
    match said:
        case [bool(row), str(english), str(template), dict(values), str(many)]:
            kind = _Row if row else Message
            known = {str(name): heard(value) for name, value in values.items()}
            message = kind(english, template, known, many)
            with suppress(LookupError, ValueError, TypeError, AttributeError):
                if message.in_language(catalogue("")) == english:
                    return message
            return english
        case int() | float():
            return said
        case _:
            return str(said)


def because(error: OSError) -> Message:
    """Return why the system refused something, in words."""
    return tr(error.strerror or str(error) or type(error).__name__)


def spoken(text: object) -> str:
    """Return a text or an error as it is shown: a message in the language of the locale."""
    if isinstance(text, BaseException):
        text = str(text)
    if isinstance(text, Message):
        return text.in_language(catalogue(language()))
    return str(text)


def say(template: str, /, **values: object) -> str:
    """Return a sentence as it is shown."""
    return spoken(tr(template, **values))


@lru_cache(maxsize=1)
def language() -> str:
    """Return the language of the locale, `zh`, or empty for English.

    As with every other program: the first of LC_ALL, LC_MESSAGES and LANG that is set is the
    locale, and unless that is C, LANGUAGE names languages that are preferred to its own.
    """
    names = (os.environ.get(name, "") for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    locale = next(filter(None, names), "C")
    if locale.partition(".")[0] in ("C", "POSIX"):
        return ""
    for name in (*os.environ.get("LANGUAGE", "").split(":"), locale):
        if name[:2].lower() in ("en", CHINESE):
            return CHINESE if name[:2].lower() == CHINESE else ""
    return ""


@lru_cache(maxsize=2)
def catalogue(name: str) -> gettext.NullTranslations:
    """Return the catalogue of a language; English has none."""
    if not name:
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, CATALOGUES, languages=[name])


def lend_catalogue() -> None:
    """Let libraries that translate their own words by gettext find them in our catalogue."""
    if language():
        gettext.bindtextdomain(DOMAIN, CATALOGUES)
        gettext.textdomain(DOMAIN)


REASONS = (
    tr("Address already in use"),
    tr("Bad file descriptor"),
    tr("Broken pipe"),
    tr("Cannot assign requested address"),
    tr("Connection refused"),
    tr("Connection reset by peer"),
    tr("Connection timed out"),
    tr("Device or resource busy"),
    tr("Disk quota exceeded"),
    tr("File exists"),
    tr("File name too long"),
    tr("File too large"),
    tr("Input/output error"),
    tr("Invalid argument"),
    tr("Is a directory"),
    tr("Name or service not known"),
    tr("Network is unreachable"),
    tr("No route to host"),
    tr("No space left on device"),
    tr("No such device or address"),
    tr("No such file or directory"),
    tr("Not a directory"),
    tr("Operation not permitted"),
    tr("Operation not supported"),
    tr("Permission denied"),
    tr("Read-only file system"),
    tr("Stale file handle"),
    tr("Temporary failure in name resolution"),
    tr("Too many levels of symbolic links"),
    tr("Too many open files"),
    tr("Transport endpoint is not connected"),
)
"""What the system says when it refuses something: only a program that sets its locale hears it in
another language, and Python does not."""
