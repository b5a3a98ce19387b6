"""The event loop that commands run on: uvloop where there is one."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple, Unpack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


def run(
    function: Callable[[Unpack[Arguments]], Awaitable[Result]], *arguments: *Arguments
) -> Result:
    """Run an async function until it returns."""
    import anyio

    fast = {"use_uvloop": find_spec("uvloop") is not None}
    return anyio.run(function, *arguments, backend_options=fast)
