"""Cells of a text table: what a spreadsheet would take for a formula is disarmed."""

from __future__ import annotations

import re
from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r")
_NAME = re.compile(r"[-+@][\w.:@-]*")


def harmless(cell: Any) -> Any:
    """Return the cell, with a quote before what a spreadsheet would take for a formula."""
    if not isinstance(cell, str) or not cell.startswith(FORMULA):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell


def harmless_id(cell: str) -> str:
    """Return an id as it is where it can only be a name: programs look it up again."""
    return cell if _NAME.fullmatch(cell) else str(harmless(cell))
