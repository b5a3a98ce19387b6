"""Run a JSONL file of prompts, pictures and files against a ChatGPT-like service.

import anyio, gpt4batch

summary = anyio.run(gpt4batch.run, gpt4batch.Settings(input="example.jsonl", out="out.jsonl"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt4batch.settings import VERSION

if TYPE_CHECKING:
    from gpt4batch.api import run
    from gpt4batch.batch.summary import Summary
    from gpt4batch.errors import FatalError, Gpt4BatchError, InputError, UsageError
    from gpt4batch.settings import Settings

__version__ = VERSION

__all__ = [
    "FatalError",
    "Gpt4BatchError",
    "InputError",
    "Settings",
    "Summary",
    "UsageError",
    "__version__",
    "run",
]

_HOME = {"run": "api", "Summary": "batch.summary", "Settings": "settings"}


def __getattr__(name: str) -> Any:
    # Imported on first use: `gpt4batch --help` must not wait for the HTTP libraries.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"gpt4batch.{_HOME.get(name, 'errors')}"), name)
