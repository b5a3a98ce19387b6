"""A command of the tool in this process: what it wrote, what it said, how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from gpt4batch.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable


class Said(NamedTuple):
    """What a command came to."""

    code: int
    out: bytes
    err: str


def caller(capsysbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Said]:
    """Return how to run the command line."""

    def run(*words: str) -> Said:
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(words))
        code = end.value.code
        out, err = capsysbinary.readouterr()
        return Said(code if isinstance(code, int) else 0, out, err.decode())

    return run
