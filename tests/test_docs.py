"""The READMEs and the pages say what the tool does: flags, commands, links, examples."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from gpt4batch.cli import COMMANDS
from gpt4batch.lines import rawjson
from gpt4batch.lines.parse import parse_line

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
LANGUAGES = {"en": ("README.md", "C.UTF-8"), "zh": ("README.zh-CN.md", "zh_CN.UTF-8")}
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    if not path.is_relative_to(ROOT / ".venv")
)
BLOCK = re.compile(r"(?P<mark><!-- not run -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)


class Row(NamedTuple):
    """What a page says of a flag."""

    short: str
    default: str
    text: str


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GPT4BATCH_", "LC_", "LANG")) and "proxy" not in name.lower()
    }
    path = f"{BIN}{os.pathsep}{kept['PATH']}"
    return {**kept, "HOME": str(home), "PATH": path, "LC_ALL": "C.UTF-8", **more}


def help_of(*words: str, lang: str, home: Path) -> str:
    env = environment(home, COLUMNS="500", LC_ALL=lang, TERM="dumb")
    command = [sys.executable, "-m", "gpt4batch", *words, "--help-all"]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def readme(language: str) -> str:
    return (ROOT / LANGUAGES[language][0]).read_text()


def told(language: str) -> str:
    """Return the README and the pages that go on where it ends."""
    pages = [(ROOT / f"docs/{language}/{name}.md").read_text() for name in ("files", "running")]
    return "\n".join((readme(language), *pages))


def plain(default: str) -> str:
    """Return a default in one form: `1.0` and `1` are the same."""
    try:
        return f"{float(default):g}"
    except ValueError:
        return default


def flags_in_help(text: str) -> dict[str, Row]:
    kind = r"(?:(?:[A-Z]+(?=  )|\S*\|\S*) +)?"  # a switch has none
    pattern = re.compile(rf"│ --(?P<long>[\w-]+) +(?:-(?P<short>\w) +)?{kind}(?P<text>.*?) *│")
    found = {}
    for match in pattern.finditer(text):
        words, _, default = re.sub("\\[默认值：", "[default: ", match["text"]).partition(
            "[default: "
        )
        default = plain(default.rpartition("]")[0])
        found[match["long"]] = Row(match["short"] or "", default, words.strip())
    del found["help"]
    return found


def flags_in_reference(language: str, command: str) -> dict[str, Row]:
    """Return what the reference says of a command's flags."""
    text = (ROOT / f"docs/{language}/reference.md").read_text()
    section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section is not None, f"the reference has no section for {command}"
    found = {}
    pattern = re.compile(
        r"^\| (?:`-(\w)`, )?`--([\w-]+)` \| .*? \| (?:`(.*?)`)? \| (.*) \|$", re.MULTILINE
    )
    for short, long, default, words in pattern.findall(section[1]):
        words = re.sub(r" (?:One of |可选：)`.*[.。]$", "", words).replace("\\|", "|")
        found[long] = Row(short, plain(default), words)
    return found


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("command", COMMANDS)
def test_reference_and_help_tell_the_same_flags(
    command: str, language: str, tmp_path: Path
) -> None:
    shown = flags_in_help(help_of(command, lang=LANGUAGES[language][1], home=tmp_path))
    written = flags_in_reference(language, command)
    assert shown
    assert written == shown, "run `make reference`"


def test_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/reference.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_stale_table_is_found(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "README.zh-CN.md", "docs/en", "docs/zh"):
        path = ROOT / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / name)
    page = tmp_path / "docs/en/reference.md"
    page.write_text(page.read_text().replace("`GPT4BATCH_GOROUTINE` | `60` |", "| `1` |"))
    command = [sys.executable, str(tmp_path / "scripts/reference.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "docs/en/reference.md: not current: run make reference\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    files = [link.partition("#")[0] for link in links if "://" not in link]
    missing = [name for name in files if name and not (page.parent / name).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE))
    assert named - targets == set()


def blocks(language: str, kind: str, page: str = "") -> list[str]:
    return [
        found["text"]
        for found in BLOCK.finditer(page or told(language))
        if found["kind"] == kind and not found["mark"]
    ]


def of_services(language: str) -> list[str]:
    """Return the commands on the page of services."""
    return blocks(language, "sh", (ROOT / f"docs/{language}/services.md").read_text())


def test_both_languages_show_the_same_commands() -> None:
    def commands(language: str) -> list[str]:
        return [re.sub(r" +#.*", "", text) for text in blocks(language, "sh")]

    assert commands("en") == commands("zh")
    assert blocks("en", "python") == blocks("zh", "python")


def pages_in(*folders: str) -> dict[str, str]:
    """Return the text of each page in folders, by its name."""
    found = [path for folder in folders for path in (ROOT / folder).glob("*.md")]
    return {path.name: path.read_text() for path in found}


def test_every_page_is_there_in_both_languages() -> None:
    english, chinese = pages_in("docs", "docs/en"), pages_in("docs/zh")
    assert {"viewer.md", "reference.md"} <= set(english)
    assert set(chinese) == set(english)
    for name, text in chinese.items():
        assert re.match(r"# [^\n]*[\u4e00-\u9fff]", text), f"docs/zh/{name} has no Chinese title"
        headings = text.count("\n## ")
        assert headings == english[name].count("\n## "), f"docs/zh/{name} has other sections"


def test_chinese_threats_name_the_same_tests() -> None:
    named = re.compile(r"`(?:test_\w+|tests/\w+\.py)`")
    english, chinese = (pages_in(name)["security.md"] for name in ("docs", "docs/zh"))
    assert named.findall(english)
    assert named.findall(chinese) == named.findall(english)


def test_chinese_readme_leads_to_chinese_pages() -> None:
    def linked(language: str, folder: str) -> set[str]:
        return set(re.findall(rf"\]\({folder}/([\w-]+\.md)\)", readme(language)))

    english = linked("en", "docs") | linked("en", "docs/en")
    assert english
    assert english <= linked("zh", "docs/zh")
    assert linked("zh", "docs") | linked("zh", "docs/en") == set()


def test_site_shows_each_language_its_own_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = runpy.run_path(str(ROOT / "scripts/website.py"))
    stage = site["stage"]
    monkeypatch.setitem(stage.__globals__, "STAGE", tmp_path)
    names = {language: [name for _, name in stage(language)] for language in LANGUAGES}
    assert names["zh"] == names["en"]
    for name in pages_in("docs/zh"):
        title = (tmp_path / "zh" / name).read_text().partition("\n")[0]
        assert title == pages_in("docs/zh")[name].partition("\n")[0]
    assert "](../faults.html)" in (tmp_path / "zh/faults.md").read_text()


@pytest.mark.parametrize("language", LANGUAGES)
def test_lines_shown_are_good_input(language: str) -> None:
    lines = blocks(language, "json")
    assert len(lines) >= 2
    for line in lines:
        assert parse_line(line.strip().encode()).asks


@pytest.mark.parametrize("language", LANGUAGES)
def test_exit_codes_are_all_told(language: str) -> None:
    codes = re.findall(r"^\| (\d|129, 130, 143) \|", readme(language), re.MULTILINE)
    assert ", ".join(codes) == "0, 1, 2, 3, 4, 129, 130, 143"


class Desk:
    """A user's folder with the files that the README takes for granted."""

    def __init__(self, folder: Path, service: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.home.mkdir(exist_ok=True)
        self.service = service
        shutil.copytree(ROOT / "examples", folder / "examples")
        for name in ("example.jsonl", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)

    def run(self, block: str, **more: str) -> str:
        env = environment(self.home, GPT4BATCH_MOCK="true", GPT4BATCH_LATENCY="0", **more)
        if block.startswith("gpt4batch authsvc"):
            env |= {"GPT4BATCH_TOKEN_URL": self.service, "GPT4BATCH_PASSWORD": "a password"}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def token_service(tmp_path: Path) -> Iterator[str]:
    """Serve tokens to whoever asks."""
    command = [sys.executable, "-m", "gpt4batch", "mocksvc", "--port", "0"]
    command += ["--accept-email=", "--accept-password="]
    with subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://\S+:\d+", process.stdout.readline())
        assert found is not None
        yield f"{found[0]}/console/access_token"
        process.send_signal(signal.SIGTERM)
        process.stdout.read()


def test_commands_of_the_readme_work_one_after_the_other(
    tmp_path: Path, token_service: str
) -> None:
    desk = Desk(tmp_path, token_service)
    others = ("make", "pip", "gpt4batch mocksvc", "gpt4batch viewsvc")  # these are tried elsewhere
    commands = [text for text in blocks("en", "sh") if not text.startswith(others)]
    assert len(commands) >= 6
    for command in commands:
        desk.run(command)
    for name in ("rehearsal.jsonl", "rehearsal-openai.jsonl", "out.jsonl", "out2.jsonl"):
        lines = [rawjson.loads(line) for line in (tmp_path / name).read_bytes().splitlines()]
        assert [line["id"] for line in lines] == ["q-1", "q-2", "q-3"]
        assert not any("iErr" in line for line in lines)
    (program,) = blocks("en", "python")
    (tmp_path / "program.py").write_text(program)
    assert desk.run("python program.py") == "3 of 3\n"


def test_both_languages_show_the_same_services() -> None:
    assert of_services("en") == of_services("zh")
    assert len(of_services("en")) >= 13


@pytest.mark.parametrize("command", of_services("en"), ids=lambda text: text.split(" -u ")[-1][:40])
def test_every_service_of_the_page_is_called_as_it_says(command: str, tmp_path: Path) -> None:
    keys = re.findall(r"\$(\w+)", command) or ["OPENAI_API_KEY"]
    more = dict.fromkeys(keys, "mock-token")
    if "api-key:" in command:
        more["GPT4BATCH_KEY_HEADER"] = "api-key"
    Desk(tmp_path, "").run(command, **more)
    out = "rehearsal.jsonl" if "--mock" in command else "out.jsonl"
    lines = [rawjson.loads(line) for line in (tmp_path / out).read_bytes().splitlines()]
    assert [len(line["answers"]) for line in lines] == [2, 1]


def test_mocksvc_of_the_readme_serves_until_interrupted(tmp_path: Path) -> None:
    (command,) = (text for text in blocks("en", "sh") if text.startswith("gpt4batch mocksvc"))
    env = environment(tmp_path)
    words = [*command.split(), "--port", "0"]
    with subprocess.Popen(words, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "listens on http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "Calls: 0" in process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize("picture", sorted((ROOT / "docs/pictures").glob("*.svg")), ids=str)
def test_pictures_load_nothing_from_elsewhere(picture: Path) -> None:
    text = picture.read_text()
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"<\s]*", text)) <= names
    assert "/tmp/" not in text


def test_readme_commands_cover_the_first_run() -> None:
    text = "".join(blocks("en", "sh"))
    for words in ("make demo", "make test", "pip install .", "authsvc", "--mock", " -f\n"):
        assert words in text
