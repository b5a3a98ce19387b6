"""The code stays readable: sizes that were measured beside well-kept projects, as limits."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import TypeAlias

PACKAGE = Path(__file__).resolve().parent.parent / "gpt4batch"
SOURCES = {
    path.relative_to(PACKAGE).with_suffix("").as_posix(): path.read_text()
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(text) for name, text in SOURCES.items()}

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

MODULE, CLASS, ATTRIBUTES, FUNCTION = 450, 300, 18, 40
ONCE = 0.15
"""The share of functions that are private and called in a single place: each is a jump to read.

One that is handed on, as what a task group runs or a route serves, could not stand anywhere else.
"""

LONG_MODULES = {
    "settings": "a table: each flag with its default and its help in two languages",
}
LONG_CLASSES = {
    "settings.Settings": "a table",
    "mock/settings.MockSettings": "a table",
}
MANY_ATTRIBUTES = {
    "mock/stats.Stats": "counters: what the embedded service tells at /stats",
}


def size(node: ast.ClassDef | Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def functions() -> list[tuple[str, Function]]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        (name, node)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, kinds)
    ]


def classes() -> list[tuple[str, ast.ClassDef]]:
    return [
        (f"{name}.{node.name}", node)
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]


def attributes(node: ast.ClassDef) -> set[str]:
    """Return the attributes that a class gives to its `self`."""
    return {
        part.attr
        for part in ast.walk(node)
        if isinstance(part, ast.Attribute)
        and isinstance(part.ctx, ast.Store)
        and isinstance(part.value, ast.Name)
        and part.value.id == "self"
    }


def test_modules_are_of_a_size_that_can_be_read() -> None:
    long = {name for name, text in SOURCES.items() if text.count("\n") > MODULE}
    assert not long - set(LONG_MODULES)


def test_classes_are_of_a_size_that_can_be_read() -> None:
    assert not {name for name, node in classes() if size(node) > CLASS} - set(LONG_CLASSES)


def test_classes_have_a_state_that_can_be_kept_in_mind() -> None:
    many = {name for name, node in classes() if len(attributes(node)) > ATTRIBUTES}
    assert not many - set(MANY_ATTRIBUTES)


def test_functions_fit_a_screen() -> None:
    assert {name: node.name for name, node in functions() if size(node) > FUNCTION} == {}


def test_functions_are_seldom_cut_out_of_their_only_caller() -> None:
    private = [
        (name, node.name)
        for name, node in functions()
        if node.name.startswith("_") and not node.name.startswith("__")
    ]
    called = Counter(
        (name, getattr(node.func, "attr", getattr(node.func, "id", "")))
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    )
    once = [
        f"{name}.{function}"
        for name, function in private
        if called[name, function] == 1 and len(re.findall(rf"\b{function}\b", SOURCES[name])) == 2
    ]
    assert len(once) / len(functions()) <= ONCE, "\n".join(once)
