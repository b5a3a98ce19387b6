"""The pages on the architecture say what the tree is: its rooms, its modules, its tests."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"en": ROOT / "docs/architecture.md", "zh": ROOT / "docs/zh/architecture.md"}
MAP = runpy.run_path(str(ROOT / "scripts/module_map.py"))
NAMED = re.compile(r"`((?:\w+/)+\w+|test_\w+)`")
SEE_SETTINGS = {
    "__init__", "api", "settings", "batch/download_folder", "batch/preflight", "batch/publishing",
    "batch/refusals",
    "batch/runner", "batch/work", "dialects/base", "dialects/gpt4api",
    "dialects/known", "dialects/openai",
    "fleet/topics", "fleet/worker",
    "service/keys", "service/wiring",
}  # fmt: skip


def modules() -> dict[str, Path]:
    package = ROOT / "gpt4batch"
    paths = (path for path in package.rglob("*.py") if path.stem not in ("__init__", "__main__"))
    return {path.relative_to(package).with_suffix("").as_posix(): path for path in paths}


def names_of_tests() -> set[str]:
    texts = (path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    return {name for text in texts for name in re.findall(r"def (test_\w+)", text)}


@pytest.mark.parametrize("language", PAGES)
def test_every_module_is_on_the_map_as_it_says_of_itself(language: str) -> None:
    page = PAGES[language].read_text()
    head = MAP["HEADS"][list(PAGES).index(language)]
    assert set(re.findall(r"<!-- map of (\w+) -->", page)) == set(MAP["rooms"]())
    assert page == MAP["filled"](page, head), "run `make reference`"
    for name, path in modules().items():
        line = MAP["first_line"](path)
        assert line.endswith((".", ":")), f"{name}: its docstring begins with no sentence"
        assert f"| `{name}` | {line} |" in page


@pytest.mark.parametrize("language", PAGES)
def test_every_module_and_test_that_is_named_is_there(language: str) -> None:
    named = set(NAMED.findall(PAGES[language].read_text()))
    assert not {name for name in named if name.startswith("test_")} - names_of_tests()
    assert (
        not {name for name in named if not name.startswith("test_")}
        - set(modules())
        - {"gpt4batch/__main__"}
    )


def test_both_languages_name_the_same_modules_and_tests() -> None:
    english, chinese = (set(NAMED.findall(page.read_text())) for page in PAGES.values())
    assert english == chinese


def test_only_the_modules_that_are_listed_see_the_settings_of_a_run() -> None:
    found = set()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "gpt4batch.settings":
                names = {alias.name for alias in node.names}
                found |= {name} if names & {"Settings", "WorkerSettings"} else set()
    assert {name for name in found if not name.startswith("cli/")} <= SEE_SETTINGS
