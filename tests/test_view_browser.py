"""The viewer in a real browser: every feature used as a person would, answers hostile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gpt4batch.lines import rawjson
from gpt4batch.lines.record import LOG_MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Locator, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
REQUIRED = os.environ.get("GPT4BATCH_REQUIRE_BROWSER") == "1"
SCREENSHOTS = os.environ.get("GPT4BATCH_SCREENSHOTS")
AXE = Path(__file__).parent / "axe" / "axe.min.js"
ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP, PHONE = (1280, 860), (390, 844)

if not REQUIRED:
    pytest.importorskip("playwright", reason="playwright is not installed (group: browser)")
    if CHROMIUM is None:
        pytest.skip("no chromium found", allow_module_level=True)

from playwright.sync_api import expect, sync_playwright  # noqa: E402

# What is looked at

MARKDOWN = """Here is the **result** of `mean`:

| Region | Share | Trend |
|:-------|------:|:-----:|
| North  |  41.2 |  up   |

```python
def mean(values):
    return sum(values) / len(values)  # plain
```

1. first
2. [a link](https://example.com/page)

> 画面中心是一只巨大的手。
"""
FAILURES = [
    {"code": 429, "message": "429 Too Many Requests", "stage": "chat", "attempts": 6},
    {"code": 404, "message": "img/none.png: no such file", "stage": "attachment", "attempts": 1},
]


def reply(text: str, downloads: Iterable[str] = ()) -> dict[str, Any]:
    message = {
        "author": {"role": "assistant"},
        "content": {"content_type": "text", "parts": [text]},
        "recipient": "all",
        "metadata": {"model_slug": "gpt-4"},
    }
    files = [{"origin": f"https://files.test/{name}", "local": name} for name in downloads]
    return {"contents": [{"error": None, "message": message}], "spec_downloads": files}


def line(number: int, answer: str, downloads: Iterable[str] = ()) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": f"q-{number}",
        "asks": [{"id": f"a-{number}", "content": f"Question {number}"}],
        "answers": [reply(answer, downloads)],
    }
    if number % 10 == 3:
        record |= {"answers": None, "iErr": FAILURES[number // 10 % 2]}
    elif number % 10 == 5:
        record["asks"].append({"id": f"b-{number}", "content": "And in one sentence?"})
    elif number % 10 == 7:
        record |= {"answers": None, "iErr": {"code": 400, "message": "resource is not ready"}}
        return record
    if number % 20 == 0:
        record["asks"][0]["images"] = ["img/photo.png"]
    end = f"2026-11-22T01:{number // 60 % 60:02}:{number % 60:02}+00:00"
    call = {"seconds": 1.5 + number % 7, "attempts": 1 + number % 3 // 2}
    record["meta"] = {"started": end, "finished": end, "asks": [call]}
    return record


def picture(path: Path, width: int = 60, height: int = 40) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(
        b"\0" + b"".join(bytes((x * 3, y * 4, 140)) for x in range(width)) for y in range(height)
    )
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def write(path: Path, records: Iterable[Any], mark: bytes = b"") -> Path:
    path.write_bytes(b"".join(mark + rawjson.dumps(record) + b"\n" for record in records))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("view")
    picture(home / "img" / "photo.png")
    picture(home / "chart.png", 80, 60)
    (home / "table.xlsx").write_bytes(b"PK\x03\x04")
    (home / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    files = ["chart.png", "table.xlsx", "drawing.svg"]

    def records(word: str) -> list[dict[str, Any]]:
        plain = f"A {word} answer"
        return [
            line(n, MARKDOWN if n == 0 else plain, files if n % 30 == 0 else ()) for n in range(120)
        ]

    write(home / "out.jsonl", records("short"))
    second = records("short")
    second[1]["answers"] = [reply("Quite another answer")]
    second[3] |= {"answers": [reply("Now it worked")], "iErr": None}
    write(home / "second.jsonl", second[:-1])
    return home


# Who looks


class Site:
    """A running viewsvc."""

    def __init__(self, *words: str | Path) -> None:
        argv = [sys.executable, "-m", "gpt4batch", "viewsvc", *map(str, words)]
        self.process = subprocess.Popen(
            argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.communicate(timeout=10)


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[Site]:
    running = Site(folder / "out.jsonl", folder / "second.jsonl")
    yield running
    running.end()


@pytest.fixture
def start() -> Iterator[Callable[..., Site]]:
    """Start a viewsvc for one test."""
    running: list[Site] = []

    def begin(*words: str | Path) -> Site:
        running.append(Site(*words))
        return running[-1]

    yield begin
    for site in running:
        site.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert CHROMIUM is not None, "GPT4BATCH_REQUIRE_BROWSER is set, but there is no chromium"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Watch:
    """What a page must not do: complain, or ask another host."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.expected = ""

    def over(self, context: BrowserContext) -> None:
        context.on("console", lambda item: self.complain(item.type, item.text, item.location))
        context.on("weberror", lambda error: self.complain("error", str(error.error)))
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("dialog", lambda dialog: self.complain("error", f"dialog {dialog.message}"))

    def complain(self, kind: str, text: str, place: Any = "") -> None:
        if kind in ("error", "warning") and not (self.expected and self.expected in text):
            self.complaints.append(f"{text} {place}")


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def look(
    browser: Browser, watch: Watch, start: Callable[..., Site]
) -> Iterator[Callable[..., Page]]:
    """Open a page; at the end it must not have complained nor asked another host."""
    contexts: list[BrowserContext] = []
    homes: list[str] = []

    def open_page(url: str, size: tuple[int, int] = DESKTOP, **more: Any) -> Page:
        options = {"locale": "en-US", "color_scheme": "light", **more}
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **options)
        context.set_default_timeout(8000)
        watch.over(context)
        contexts.append(context)
        homes.append(url.split("#")[0])
        page = context.new_page()
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert watch.complaints == []
    foreign = [url for url in watch.requests if not url.startswith((*homes, "data:", "blob:"))]
    assert foreign == []


def shot(page: Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=str(Path(SCREENSHOTS) / f"{name}.png"))


def at(site: Site, address: str) -> str:
    return f"{site.url}#/{address}"


def drawn(canvas: Locator) -> bool:
    pixels = "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data"
    return bool(canvas.evaluate(f"canvas => {pixels}.some(Boolean)"))


def loaded(images: Locator) -> bool:
    return bool(images.evaluate_all("all => all.length > 0 && all.every(i => i.naturalWidth > 0)"))


def saved(page: Page, click: Callable[[], None]) -> bytes:
    with page.expect_download() as download:
        click()
    return Path(download.value.path()).read_bytes()


# Overview


def test_overview_shows_progress_figures_and_charts(look: Callable[..., Page], site: Site) -> None:
    page = look(at(site, "overview"))
    expect(page.locator(".progress .big")).to_have_text("70%")
    expect(page.locator(".tile")).to_have_count(5)
    expect(page.locator("canvas")).to_have_count(3)
    assert all(drawn(page.locator("canvas").nth(place)) for place in range(3))
    expect(page.locator(".runs tbody tr")).to_have_count(2)
    shot(page, "overview")
    page.get_by_role("button", name="Failed").click()
    expect(page.locator(".status")).to_have_text("12 of 120 lines")


def test_failures_lead_to_their_lines(look: Callable[..., Page], site: Site) -> None:
    page = look(at(site, "overview"))
    page.get_by_role("button", name="img/none.png: no such file").click()
    expect(page.locator(".status")).to_have_text("6 of 120 lines")
    expect(page.locator(".row-error").first).to_have_text("img/none.png: no such file")
    page.go_back()
    page.locator(".causes tbody tr").first.get_by_role("button").nth(1).click()
    expect(page.locator(".failure")).to_contain_text("Service error")
    page.go_back()
    page.locator("canvas").nth(2).click(position={"x": 200, "y": 20})
    expect(page.locator(".status")).to_have_text("6 of 120 lines")


def test_failed_lines_and_results_are_saved(look: Callable[..., Page], site: Site) -> None:
    page = look(at(site, "overview"))
    failed = saved(page, page.get_by_role("link", name="Failed lines as JSONL").click)
    assert [rawjson.loads(text)["iErr"]["code"] for text in failed.splitlines()] == [429, 404] * 6
    table = saved(page, page.get_by_role("link", name="Results as CSV").click)
    assert table.count(b"\r\n") == 1 + 120 + 12
    page.goto(at(site, "lines?q=Question+11"))
    expect(page.locator(".status")).to_have_text("11 of 120 lines")
    assert len(saved(page, page.locator(".saves a").first.click).splitlines()) == 11


def test_output_without_timings_says_so(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    asks = [{"id": "pid: 0", "content": "x"}]
    error = {"code": 501, "message": "failed to chat: 429 Too Many Requests"}
    site = start(
        write(
            tmp_path / "out.jsonl", [{"id": "id: 0", "asks": asks, "answers": None, "iErr": error}]
        )
    )
    page = look(site.url)
    expect(page.get_by_text("carries no timings").first).to_be_visible()
    expect(page.get_by_role("button", name="failed to chat: 429 Too Many Requests")).to_be_visible()
    shot(page, "overview-original")


# Lines


def test_filters_narrow_the_list(look: Callable[..., Page], site: Site) -> None:
    page = look(at(site, "lines"))
    status = page.locator(".status")
    expect(status).to_have_text("120 lines")
    for chip, count in [("Done", 84), ("Failed", 12), ("Not run", 12), ("Partly answered", 12)]:
        page.locator(".chip", has_text=chip).click()
        expect(status).to_have_text(f"{count} of 120 lines")
    page.locator(".chip", has_text="All").click()
    page.get_by_label("Cause of failure").select_option("1")
    expect(status).to_have_text("6 of 120 lines")
    page.get_by_label("Cause of failure").select_option("")
    page.locator(".chip", has_text="With pictures").click()
    expect(status).to_have_text("8 of 120 lines")
    page.locator(".chip", has_text="With pictures").click()
    page.get_by_label("Search").fill("巨大的手")
    expect(status).to_have_text("1 of 120 lines")
    page.get_by_label("Search").fill("nowhere to be found")
    expect(page.get_by_text("No lines match.")).to_be_visible()


def test_search_marks_what_it_finds_and_jumps_to_it(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    answer = "word " * 3000 + "NEEDLE, then " + "more " * 3000 + "and the needle again."
    records = [line(0, "nothing here"), line(1, answer)]
    page = look(at(start(write(tmp_path / "out.jsonl", records)), "lines"))
    page.get_by_label("Search").fill("needle")
    expect(page.locator(".status")).to_have_text("1 of 2 lines")
    expect(page.locator(".row mark")).to_have_text("NEEDLE")
    expect(page.locator(".row-answer")).to_contain_text("word NEEDLE, then more")
    page.get_by_label("Search").press("Enter")
    hits = page.locator(".hits")
    expect(hits).to_have_text("1 of 2")
    assert page.evaluate("() => CSS.highlights.get('found').size") == 2
    where = "() => [...CSS.highlights.get('found-now')][0].getBoundingClientRect().top"
    assert 0 < page.evaluate(where) < DESKTOP[1]
    page.keyboard.press("n")
    expect(hits).to_have_text("2 of 2")
    assert 0 < page.evaluate(where) < DESKTOP[1]
    page.keyboard.press("N")
    expect(hits).to_have_text("1 of 2")
    shot(page, "found")
    page.get_by_label("Search").fill("")
    expect(hits).to_be_hidden()


def test_ticked_lines_make_the_command_that_runs_them_again(
    look: Callable[..., Page], site: Site
) -> None:
    page = look(at(site, "lines"))
    panel = page.locator(".ticked")
    expect(panel).to_be_hidden()
    page.locator(".row").nth(3).click()
    page.get_by_role("button", name="Tick the line").click()
    expect(panel).to_contain_text("1 line ticked")
    expect(panel.locator("code")).to_have_text(re.compile(r"-o \S+ -f --only q-3$"))
    page.locator(".row").nth(4).click(modifiers=["Control"])
    expect(panel.locator("code")).to_have_text(re.compile(r" -f --only q-3,q-4 --redo$"))
    expect(page.locator(".row .tick")).to_have_count(2)
    page.keyboard.press("x")  # the one that is open
    expect(panel.locator("code")).to_have_text(re.compile(r" -f --only q-4 --redo$"))
    shot(page, "ticked")
    panel.get_by_role("button", name="Untick all").click()
    expect(panel).to_be_hidden()


def test_address_of_a_line_finds_it_where_it_stands_later(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    records = [line(n, f"answer {n}") for n in range(3)]
    page = look(at(start(write(tmp_path / "out.jsonl", records)), "lines"))
    page.locator(".row").nth(2).click()
    expect(page.locator(".detail h2")).to_have_text("q-2")
    page.wait_for_function("() => location.hash.includes('key=')")
    address = page.evaluate("() => location.hash")
    moved = start(write(tmp_path / "later.jsonl", [records[2], *records[:2]]))
    page = look(f"{moved.url}{address}")
    expect(page.locator(".detail h2")).to_have_text("q-2")
    page.wait_for_function("() => location.hash.includes('row=0')")


def test_line_is_a_conversation_with_pictures_and_files(
    look: Callable[..., Page], site: Site
) -> None:
    page = look(at(site, "lines"))
    page.locator(".row").first.click()
    detail = page.locator(".detail")
    expect(detail.locator(".ask-text")).to_have_text("Question 0")
    expect(detail.locator(".prose table td").nth(1)).to_have_css("text-align", "right")
    expect(detail.locator(".hljs-keyword").first).to_have_text("def")
    link = detail.get_by_role("link", name="a link")
    expect(link).to_have_attribute("rel", re.compile("noopener noreferrer"))
    expect(detail.locator(".thumb")).to_have_count(2)
    page.wait_for_function(
        "() => [...document.querySelectorAll('.thumb img')].every(i => i.complete)"
    )
    assert loaded(detail.locator(".thumb img"))
    assert saved(page, detail.locator("a.file", has_text="drawing.svg").click).startswith(b"<svg")
    shot(page, "line")
    detail.locator(".thumb").first.click()
    expect(page.locator("dialog.lightbox img")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)


def test_raw_json_is_one_click_away(look: Callable[..., Page], site: Site) -> None:
    page = look(at(site, "lines?row=3"))
    page.get_by_role("button", name="Raw JSON").click()
    expect(page.locator(".raw")).to_contain_text('"message": "429 Too Many Requests"')
    shot(page, "raw")
    page.get_by_role("button", name="Next line").click()
    expect(page.locator(".raw")).to_contain_text('"id": "q-4"')
    page.get_by_role("button", name="Raw JSON").click()
    expect(page.locator(".said")).to_be_visible()


def test_line_with_several_asks_shows_each_turn(look: Callable[..., Page], site: Site) -> None:
    page = look(at(site, "lines?row=5"))
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".turn").nth(1)).to_contain_text("Not asked yet.")


def test_long_list_scrolls_to_its_end_with_few_elements(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    lines = b"".join(b'{"id":"n%d","asks":[{"content":"x"}]}\n' % n for n in range(126_000))
    (tmp_path / "out.jsonl").write_bytes(lines)
    site = start(tmp_path / "out.jsonl")
    page = look(at(site, "lines"))
    expect(page.locator(".status")).to_have_text("126,000 lines", timeout=15_000)
    top = page.locator(".list")
    top.evaluate("list => { list.scrollTop = list.scrollHeight; }")
    expect(page.locator(".row-id").last).to_have_text("n125999")
    top.evaluate("list => { list.scrollTop = list.scrollHeight / 2; }")
    expect(page.locator(".row-id").first).to_have_text(re.compile("n6[23]"))
    before = int((page.locator(".row-id").first.text_content() or "n0")[1:])
    top.hover()
    page.mouse.wheel(0, 640)
    expect(page.locator(".row-id").first).to_have_text(f"n{before + 10}")
    page.wait_for_timeout(250)  # the bar is put right once it is still: nothing may move then
    expect(page.locator(".row-id").first).to_have_text(f"n{before + 10}")
    assert page.locator(".row").count() < 60
    top.focus()
    page.keyboard.press("End")
    expect(page.locator(".detail h2")).to_have_text("n125999")
    page.keyboard.press("Home")
    expect(page.locator(".detail h2")).to_have_text("n0")


# Pictures and comparison


def test_gallery_shows_every_picture_and_leads_to_its_line(
    look: Callable[..., Page], site: Site
) -> None:
    page = look(at(site, "pictures"))
    expect(page.locator("figure")).to_have_count(10)
    page.wait_for_function(
        "() => [...document.querySelectorAll('figure img')].every(i => i.complete)"
    )
    assert loaded(page.locator("figure img"))
    shot(page, "pictures")
    page.locator("figure .tile-picture").first.click()
    expect(page.locator(".lightbox-moves")).to_contain_text("1 / 10")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".lightbox-moves")).to_contain_text("2 / 10")
    shot(page, "lightbox")
    page.get_by_role("button", name="Open its line").click()
    expect(page.locator(".detail h2")).to_have_text("q-0")


def test_gallery_turns_pages(
    look: Callable[..., Page], start: Callable[..., Site], folder: Path
) -> None:
    record = line(0, "many")
    record["asks"][0]["images"] = ["img/photo.png"] * 70
    site = start(write(folder / "many.jsonl", [record]))
    page = look(at(site, "pictures"))
    expect(page.locator(".pager")).to_contain_text("1–60 of 70 pictures")
    page.get_by_role("button", name="Next page").click()
    expect(page.locator("figure")).to_have_count(10)
    page.keyboard.press("k")
    expect(page.locator("figure")).to_have_count(60)


def test_two_runs_stand_side_by_side(look: Callable[..., Page], site: Site) -> None:
    page = look(at(site, "compare"))
    expect(page.locator(".status")).to_have_text("120 lines")
    for chip, count in [("Different answer", 1), ("Done only right", 1), ("Only left", 1)]:
        page.locator(".chip", has_text=chip).click()
        expect(page.locator(".row")).to_have_count(count)
    expect(page.locator(".row")).to_contain_text("Not in this output.")
    page.locator(".chip", has_text="Different answer").click()
    page.locator(".row").first.click()
    sides = page.locator(".one-side")
    expect(sides.nth(0)).to_contain_text("A short answer")
    expect(sides.nth(1)).to_contain_text("Quite another answer")
    expect(sides.nth(0).locator("del")).to_have_text(["A", "short"])
    expect(sides.nth(1).locator("ins")).to_have_text(["Quite", "another"])
    shot(page, "compare")
    page.keyboard.press("d")
    expect(page.locator("del, ins")).to_have_count(0)
    expect(sides.nth(1).locator(".said")).to_have_text("Quite another answer")
    page.get_by_label("Left").select_option("1")
    expect(page.locator(".chip", has_text="Same answer")).to_contain_text("119")


def test_comparison_of_one_output_says_what_to_do(
    look: Callable[..., Page], start: Callable[..., Site], folder: Path
) -> None:
    site = start(folder / "out.jsonl")
    page = look(at(site, "compare"))
    expect(page.get_by_text("gpt4batch viewsvc a.jsonl b.jsonl")).to_be_visible()


# While the run is on


def test_running_batch_grows_on_the_page_and_keeps_the_open_line(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    source = write(
        tmp_path / "in.jsonl", [{k: line(n, "")[k] for k in ("id", "asks")} for n in (0, 1, 2)]
    )
    out = write(tmp_path / "out.jsonl", [line(2, "the second")], LOG_MARK)
    site = start(out)
    page = look(at(site, "lines?row=0"))
    expect(page.locator(".said")).to_contain_text("the second")
    with out.open("ab") as file:
        file.write(LOG_MARK + rawjson.dumps(line(1, "the first")) + b"\n")
    expect(page.locator(".status")).to_have_text("2 lines")
    page.keyboard.press("o")
    expect(page.locator(".run-status")).to_contain_text("Running")
    page.keyboard.press("l")
    page.locator(".row").first.click()
    expect(page.locator(".said")).to_contain_text("the second")
    fresh = write(tmp_path / "new", [line(n, f"the line {n}") for n in (0, 1, 2)])
    fresh.replace(out)
    expect(page.locator(".status")).to_have_text("3 lines")
    expect(page.locator(".row").nth(2)).to_contain_text("the line 2")
    expect(page.locator(".detail h2")).to_have_text("q-2")
    expect(page.locator(".said")).to_contain_text("the line 2")
    expect(page.locator(".row.active .row-id")).to_have_text("q-2")
    assert source.exists()


def test_end_of_viewsvc_is_told(
    look: Callable[..., Page], start: Callable[..., Site], watch: Watch, folder: Path
) -> None:
    site = start(folder / "out.jsonl")
    page = look(site.url)
    expect(page.locator(".progress")).to_be_visible()
    watch.expected = "ERR_CONNECTION_REFUSED"
    site.end()
    expect(page.locator(".banner")).to_contain_text("viewsvc was stopped", timeout=10_000)


# Keys, languages, colours


def test_everything_is_reached_by_keys(look: Callable[..., Page], site: Site) -> None:
    page = look(site.url)
    expect(page.locator(".progress")).to_be_visible()
    keyboard = page.keyboard
    keyboard.press("l")
    expect(page.locator(".row").first).to_be_visible()
    keyboard.press("j")
    expect(page.locator(".detail h2")).to_have_text("q-0")
    keyboard.press("j")
    expect(page.locator(".detail h2")).to_have_text("q-1")
    keyboard.press("k")
    expect(page.locator(".detail h2")).to_have_text("q-0")
    keyboard.press("r")
    expect(page.locator(".raw")).to_be_visible()
    keyboard.press("r")
    keyboard.press("2")
    expect(page.locator(".status")).to_have_text("12 of 120 lines")
    keyboard.press("Escape")
    expect(page.locator(".status")).to_have_text("120 lines")
    keyboard.press("/")
    keyboard.type("Question 77")
    expect(page.locator(".status")).to_have_text("1 of 120 lines")
    keyboard.press("Escape")
    keyboard.press("p")
    expect(page.locator("figure").first).to_be_visible()
    keyboard.press("c")
    expect(page.locator(".comparing")).to_be_visible()
    keyboard.press("?")
    expect(page.locator("dialog.help")).to_be_visible()
    shot(page, "help")
    keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    keyboard.press("o")
    expect(page.locator(".progress")).to_be_visible()


def test_language_is_the_browsers_until_it_is_switched(
    look: Callable[..., Page], site: Site
) -> None:
    page = look(site.url, locale="zh-CN")
    expect(page.locator("nav")).to_contain_text("概览")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    shot(page, "overview-zh")
    page.get_by_role("button", name="English").click()
    expect(page.locator("nav").first).to_contain_text("Overview")
    page.reload()
    expect(page.locator("nav").first).to_contain_text("Overview")
    page.keyboard.press("z")
    expect(page.locator("nav").first).to_contain_text("概览")


def test_colours_are_the_systems_until_they_are_switched(
    look: Callable[..., Page], site: Site
) -> None:
    page = look(site.url, color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.get_by_role("button", name="Theme").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    page.keyboard.press("t")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.reload()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()


VIEWS = {
    "overview": "overview",
    "lines": "lines?row=0",
    "failed": "lines?state=failed&row=3",
    "pictures": "pictures",
    "compare": "compare",
}


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible_and_fits(
    look: Callable[..., Page], site: Site, size: tuple[int, int], scheme: str
) -> None:
    page = look(site.url, size, color_scheme=scheme)
    for name, address in VIEWS.items():
        page.goto(at(site, address))
        page.locator(".tile, .said, .failure, figure, .pair").first.wait_for()
        shot(page, f"{name}-{scheme}-{size[0]}")
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), name
        assert findings(page) == [], name


def findings(page: Page) -> list[str]:
    page.evaluate(AXE.read_text() + ";0")
    found = page.evaluate("() => axe.run({ resultTypes: ['violations'] })")
    return [
        f"{item['id']}: {item['nodes'][0]['html'][:120]} {item['nodes'][0]['failureSummary']}"
        for item in found["violations"]
        if item["impact"] in ("serious", "critical")
    ]


def test_phone_shows_list_or_line(look: Callable[..., Page], site: Site) -> None:
    page = look(at(site, "lines"), PHONE, has_touch=True, is_mobile=True)
    expect(page.locator(".detail")).to_be_hidden()
    shot(page, "list-phone")
    page.locator(".row").nth(2).tap()
    expect(page.locator(".said")).to_be_visible()
    expect(page.locator(".list")).to_be_hidden()
    page.get_by_role("button", name="Back to the list").tap()
    expect(page.locator(".list")).to_be_visible()


# Hostile answers


class Bait(BaseHTTPRequestHandler):
    """Another host, which nobody may ask."""

    asked: list[str]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def bait() -> Iterator[str]:
    Bait.asked = []
    server = HTTPServer(("127.0.0.1", 0), Bait)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    assert Bait.asked == []


def hostile(bait: str) -> list[str]:
    return [
        "<script>window.caught = 1; alert(1)</script>",
        f"<img src=x onerror=window.caught=1> <img src={bait}/html.png>",
        f"![remote]({bait}/markdown.png) ![data](data:image/svg+xml,<svg onload=alert(1)>)",
        f'[![nested]({bait}/nested.png)]({bait}/link "t")',
        "[click](javascript:window.caught=1) [a](JaVaScRiPt:alert(1)) [b](java\nscript:alert(1))",
        "[data](data:text/html,<script>alert(1)</script>) [vb](vbscript:x) [file](file:///etc/passwd)",
        "<javascript:alert(1)> <a href=javascript:window.caught=1>raw</a> javascript:alert(1)",
        "<svg onload=window.caught=1><animate onbegin=window.caught=1 attributeName=x></svg>",
        f"<svg><use href='{bait}/use.svg#x'/></svg><math><mi xlink:href='javascript:alert(1)'>m",
        f"<iframe src='{bait}/frame'></iframe><object data='{bait}/object'></object>",
        f"<link rel=stylesheet href={bait}/style.css><style>@import '{bait}/import.css'</style>",
        f"<meta http-equiv=refresh content='0;url={bait}/refresh'><base href='{bait}/'>",
        f"<form action={bait}><input autofocus onfocus=window.caught=1></form>",
        f"<div style='background:url({bait}/background.png)' onclick=window.caught=1>x</div>",
        '```x" onmouseover="window.caught=1\n<b>code</b>\n```',
        "```html\n<script>window.caught=1</script>\n```",
        f"| a |\n|:-:|\n| <img src={bait}/cell.png> |",
        f"[ref]: {bait}/ref\n\n![x][ref] [x][ref]",
        "<noscript><p title='</noscript><img src=x onerror=window.caught=1>'>",
        "<math><mtext><table><mglyph><style><img src=x onerror=window.caught=1>",
        "<template><script>window.caught=1</script></template>",
        "]]>--><!--<img src=x onerror=window.caught=1>",
        "{{constructor.constructor('window.caught=1')()}} ${window.caught=1}",
        "\u202eevil\u202c \x00 \x1b[31m \ufeff",
    ]


def hostile_lines(bait: str) -> list[dict[str, Any]]:
    texts = hostile(bait)
    records = [line(20 * n + 1, text) for n, text in enumerate(texts)]
    every = "\n\n".join(texts)
    attack = "<img src=x onerror=window.caught=1>"
    whole = line(1001, every, ["drawing.svg", f"{attack}.png", "../../../etc/passwd"])
    whole["id"] = attack
    whole["asks"][0] |= {"content": every, "id": attack, "images": [f"{bait}/a.png", "/etc/passwd"]}
    tool = {
        "author": {"role": "tool", "name": attack},
        "content": {"content_type": "x", "result": every},
    }
    whole["answers"][0]["contents"].append({"message": tool})
    failed = line(3, "")
    failed["iErr"] = {"code": 500, "message": every, "stage": attack}
    return [whole, failed, *records]


FORBIDDEN = """() => {
  const tags = 'SCRIPT IFRAME OBJECT EMBED FORM META LINK BASE STYLE MATH'.split(' ');
  const home = location.href.split('#')[0].replace(/[^/]*$/, '');
  const isOdd = (e) => tags.includes(e.tagName.toUpperCase())
    || [...e.attributes].some(({ name }) => /^on/i.test(name))
    || (e.tagName === 'A' && !/^(https?|mailto):/.test(e.href) && !e.closest('.top'))
    || (e.tagName === 'IMG' && ![home, 'data:image/png'].some((s) => e.src.startsWith(s)));
  const all = [...document.querySelectorAll('#app *')];
  return all.filter(isOdd).map((e) => e.outerHTML.slice(0, 200));
}"""


def test_hostile_answers_do_nothing(
    look: Callable[..., Page], start: Callable[..., Site], bait: str, folder: Path
) -> None:
    records = hostile_lines(bait)
    site = start(write(folder / "hostile.jsonl", records))
    page = look(at(site, "overview"))
    expect(page.locator(".causes")).to_be_visible()
    for row in range(len(records)):
        page.goto(at(site, f"lines?row={row}"))
        page.locator(".detail .turn").first.wait_for()
        expect(page.locator(".detail .detail-title .faint")).to_have_text(f"Line {row + 1}")
        assert page.evaluate(FORBIDDEN) == []
        for link in page.locator(".prose a").all():
            assert re.match(r"https?://", link.get_attribute("href") or "")
    page.goto(at(site, "lines?row=0"))
    page.locator("details").evaluate_all("all => all.forEach(d => { d.open = true; })")
    expect(page.locator(".file", has_text="/etc/passwd").first).to_contain_text(
        "not found in the folder"
    )
    shot(page, "hostile")
    page.get_by_role("button", name="Raw JSON").click()
    expect(page.locator(".raw")).to_be_visible()
    page.keyboard.press("p")
    expect(page.locator("figure").first).to_be_visible()
    assert page.evaluate("() => window.caught") is None


HUGE = {
    "flat": "x" * 10_000_000,
    "markdown": "**bold** [link](https://e.x) `code`\n\n" * 250_000,
    "quotes": "> " * 40_000 + "deep",
    "brackets": "[" * 90_000,
    "images": "![" * 45_000,
    "ticks": "`" * 50_000 + "a" + "`" * 49_999,
    "stars": "*a_ " * 24_000,
    "table": "|a" * 30_000 + "\n" + "|-" * 30_000,
    "lists": "- " * 5_000 + "\n" + "  " * 5_000 + "- x",
    "angles": "<" * 50_000 + "&" * 40_000,
    "links": "https://e.x/" * 8_000,
    "open code": "```" + "\n# x" * 25_000,
    "open formulas": "\\(" * 45_000,
    "open formula blocks": "\\[\n" * 30_000,
    "formulas": "$$x$$ " * 15_000,
}


def test_huge_and_broken_markdown_is_shown_soon(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    records = [line(20 * number, text) for number, text in enumerate(HUGE.values())]
    site = start(write(tmp_path / "out.jsonl", [*records, line(2, "still alive")]))
    page = look(at(site, "lines"))
    for row, name in enumerate([*HUGE, "last"]):
        page.goto(at(site, f"lines?row={row}"))
        expect(page.locator(".detail-title .faint")).to_have_text(f"Line {row + 1}", timeout=4000)
        assert page.locator(".said").inner_text().strip(), name
    expect(page.locator(".said")).to_have_text("still alive")


# The report


def export(folder: Path, *words: str) -> str:
    path = folder / "report.html"
    argv = [sys.executable, "-m", "gpt4batch", "viewsvc", *words, "--export", str(path)]
    subprocess.run(argv, check=True, capture_output=True, cwd=folder, timeout=30)
    return path.as_uri()


def test_report_works_offline_from_a_file(
    look: Callable[..., Page], watch: Watch, folder: Path
) -> None:
    url = export(folder, "out.jsonl", "second.jsonl")
    page = look(url, offline=True)
    expect(page.locator(".banner")).to_contain_text("Report of")
    expect(page.locator(".banner")).to_contain_text("It holds every line.")
    assert all(drawn(page.locator("canvas").nth(place)) for place in range(3))
    shot(page, "report")
    page.keyboard.press("l")
    expect(page.locator(".status")).to_have_text("120 lines")
    expect(page.locator(".row-id").first).to_have_text("q-3")
    page.locator(".row").first.click()
    page.get_by_role("button", name="Raw JSON").click()
    expect(page.locator(".raw")).to_contain_text("429")
    page.get_by_label("Search").fill("result")
    expect(page.locator(".status")).to_have_text("1 of 120 lines")
    page.locator(".row").first.click()
    expect(page.locator(".prose table")).to_be_visible()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.thumb img')].every(i => i.complete)"
    )
    assert loaded(page.locator(".thumb img"))
    page.goto(f"{url}#/pictures")
    expect(page.locator("figure")).to_have_count(10)
    assert findings(page) == []
    expect(page.locator("nav").first).not_to_contain_text("Compare")
    assert [item for item in watch.requests if not item.startswith(("file:", "data:"))] == []


def test_report_of_hostile_answers_does_nothing(
    look: Callable[..., Page], bait: str, folder: Path
) -> None:
    records = hostile_lines(bait)
    write(folder / "hostile.jsonl", records)
    url = export(folder, "hostile.jsonl")
    page = look(url)
    for row in range(2):  # these two hold all there is
        page.goto(f"{url}#/lines?row={row}")
        expect(page.locator(".detail .detail-title .faint")).to_have_text(f"Line {row + 1}")
        assert page.evaluate(FORBIDDEN) == []
    assert page.evaluate("() => window.caught") is None


def test_bounded_report_says_what_it_leaves_out(look: Callable[..., Page], folder: Path) -> None:
    records = [line(n, "a word or two " * 100) for n in range(1500)]
    write(folder / "large.jsonl", records)
    url = export(folder, "large.jsonl", "--export-size", "2")
    assert (folder / "report.html").stat().st_size <= 2 * 1024 * 1024
    page = look(url, PHONE)
    expect(page.locator(".banner")).to_contain_text(
        re.compile(r"It holds \d+ of 1,500 lines: 150 of 150 failed")
    )
    shot(page, "report-phone")


# States as they are


@pytest.fixture
def halted(start: Callable[..., Site], tmp_path: Path) -> Site:
    """An output of a run that ended before its time."""
    failed = line(3, "")
    failed["asks"] += [{"id": "x", "content": "Next"}, {"id": "y", "content": "Last"}]
    return start(
        write(tmp_path / "out.jsonl", [line(0, "yes"), line(5, "one"), failed, line(7, "")])
    )


def test_interrupted_run_is_stopped_and_not_finished(
    look: Callable[..., Page], halted: Site
) -> None:
    page = look(halted.url)
    expect(page.locator(".run-status")).to_contain_text("Stopped 22 Nov 2026")
    expect(page.locator(".run-status")).to_contain_text("2 lines not finished")
    shot(page, "overview-stopped")


def test_line_that_did_not_run_has_not_failed(look: Callable[..., Page], halted: Site) -> None:
    page = look(at(halted, "lines?row=3"))
    expect(page.locator(".turn")).to_contain_text("Not asked yet.")
    expect(page.locator(".failure")).to_have_count(0)
    page.goto(at(halted, "lines?row=1"))
    expect(page.locator(".turn").nth(1)).to_contain_text("Not asked yet.")


def test_only_the_ask_that_failed_is_called_failed(look: Callable[..., Page], halted: Site) -> None:
    page = look(at(halted, "lines?row=2"))
    turns = page.locator(".turn")
    expect(turns.nth(0)).to_contain_text("the line failed here")
    expect(turns.nth(1)).to_contain_text("Not asked: the line failed before.")
    expect(turns.nth(2)).to_contain_text("Not asked: the line failed before.")
    expect(page.locator(".failure")).to_contain_text("429 Too Many Requests")


def test_different_failures_of_one_code_are_kept_apart(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    messages = ["content policy violation", "model gpt-5 does not exist", "prompt is too long"]
    records = [line(3, "") for _ in messages * 2]
    for place, record in enumerate(records):
        record["iErr"] = {"code": 400, "stage": "chat", "message": messages[place % 3]}
    site = start(write(tmp_path / "out.jsonl", records))
    page = look(at(site, "overview"))
    for message in messages:
        row = page.locator(".causes tbody tr", has_text=message)
        expect(row).to_contain_text("Service error 400")
        expect(row.locator(".number")).to_have_text("2")
    page.get_by_role("button", name=messages[1]).click()
    expect(page.locator(".status")).to_have_text("2 of 6 lines")
    option = page.get_by_label("Cause of failure").locator("option:checked")
    expect(option).to_have_text(f"{messages[1]} · Service error 400 (2)")


def test_one_failure_of_many_is_not_nought_percent(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    records = [line(0, "yes") for _ in range(2999)]
    records[0]["meta"]["calls"] = 4
    site = start(write(tmp_path / "out.jsonl", [*records, {**line(3, ""), "meta": None}]))
    page = look(at(site, "overview"))
    tiles = page.locator(".tile")
    expect(tiles.nth(0)).to_contain_text("0.1% of the lines")
    expect(tiles.nth(1)).to_contain_text("3,002")
    expect(tiles.nth(1)).to_contain_text("2,999 answered")


def test_long_ids_stay_in_their_place(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    records = [line(0, "yes"), line(3, "")]
    for record in records:
        record["id"] = "dataset/train/" + "fec6cb26-" * 34
    site = start(write(tmp_path / "out.jsonl", records))
    page = look(at(site, "lines?row=0"), PHONE, locale="zh-CN", color_scheme="dark")
    title = page.locator(".detail h2")
    expect(title).to_have_attribute("title", records[0]["id"])
    right = title.evaluate("e => e.getBoundingClientRect().right")
    assert right <= page.locator(".detail .badge").evaluate("e => e.getBoundingClientRect().left")
    last = page.locator(".detail-head button").last
    assert last.evaluate("e => e.getBoundingClientRect().right") <= PHONE[0]
    shot(page, "long-id-phone")
    page.goto(at(site, "overview"))
    frame = page.locator(".causes .table-frame")
    frame.wait_for()
    assert frame.evaluate("e => e.scrollWidth <= e.clientWidth")
    shot(page, "causes-phone")


def test_list_is_walked_by_arrows_wherever_one_is(look: Callable[..., Page], site: Site) -> None:
    page = look(site.url)
    expect(page.locator(".progress")).to_be_visible()
    keyboard, title = page.keyboard, page.locator(".detail h2")
    keyboard.press("l")
    expect(page.locator(".row").first).to_be_visible()
    keyboard.press("ArrowDown")
    expect(title).to_have_text("q-0")
    keyboard.press("j")
    expect(title).to_have_text("q-1")
    keyboard.press("Enter")
    expect(page.locator(".detail")).to_be_focused()
    keyboard.press("Escape")
    expect(page.locator(".list")).to_be_focused()
    keyboard.press("ArrowDown")
    expect(title).to_have_text("q-2")
    keyboard.press("End")
    expect(title).to_have_text("q-119")


@pytest.mark.parametrize("key", ["Enter", "ArrowDown"])
def test_search_leads_to_its_first_line(look: Callable[..., Page], site: Site, key: str) -> None:
    page = look(at(site, "lines"))
    expect(page.locator(".status")).to_have_text("120 lines")
    page.keyboard.press("/")
    page.keyboard.type("Question 77")
    page.keyboard.press(key)
    expect(page.locator(".detail h2")).to_have_text("q-77")
    expect(page.locator(".status")).to_have_text("1 of 120 lines")
    expect(page.locator(".list")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("Question 11")
    expect(page.locator(".status")).to_have_text("11 of 120 lines")
    page.keyboard.press(key)
    expect(page.locator(".detail h2")).to_have_text("q-11")
    page.keyboard.press("ArrowDown")
    expect(page.locator(".detail h2")).to_have_text("q-110")


FORMULAS = r"""Energy \( E_{i_j} = m\,c^2 \) and \(\sum_k a_*b_*\), so:

\[
\begin{matrix} a & b \\ c & d \end{matrix}
=
\int_0^1 f(x) \,dx
\]

- a list with

  $$
  x_1 < y_2
  $$

It costs $5 and $10, says \*nobody\*, and `\(code\)` stays code.
"""


def test_formulas_are_drawn(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    broken = r"\n\nBroken: \(\frac{1}\) and \(\undefined_thing\)."
    site = start(write(tmp_path / "out.jsonl", [line(0, FORMULAS + broken)]))
    page = look(at(site, "lines?row=0"))
    formulas = page.locator(".said .formula")
    expect(formulas).to_have_count(4)
    expect(page.locator(".said math")).to_have_count(4)
    assert formulas.nth(0).get_attribute("title") == r"E_{i_j} = m\,c^2"
    assert formulas.nth(1).get_attribute("title") == r"\sum_k a_*b_*"
    block = FORMULAS[FORMULAS.index("\\[") + 2 : FORMULAS.index("\\]")].strip()
    assert formulas.nth(2).get_attribute("title") == block
    assert formulas.nth(3).get_attribute("title") == "x_1 < y_2"
    assert page.evaluate(
        "() => [...document.querySelectorAll('math')].every(m => m.namespaceURI.endsWith('MathML'))"
    )
    # What cannot be read as TeX stays as it was written.
    expect(page.locator(".said code.math")).to_have_text([r"\(\frac{1}\)", r"\(\undefined_thing\)"])
    said = page.locator(".said")
    expect(said).to_contain_text(r"It costs $5 and $10, says *nobody*, and \(code\) stays code.")
    expect(page.locator(".said h1, .said h2, .said em")).to_have_count(0)
    shot(page, "formulas")


def test_command_that_runs_the_rest_is_copied(
    look: Callable[..., Page], halted: Site, tmp_path: Path
) -> None:
    page = look(halted.url, permissions=["clipboard-read", "clipboard-write"])
    again = page.locator(".again")
    expect(again).to_contain_text("To run the 3 lines that are not done")
    again.get_by_role("button", name="Copy").click()
    expect(again.get_by_role("button", name="Copied")).to_be_visible()
    command = f"gpt4batch batchsvc -i INPUT.jsonl -o {tmp_path / 'out.jsonl'} -f"
    assert page.evaluate("() => navigator.clipboard.readText()") == command


def test_answers_that_differ_wholly_are_shown_soon(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    sides = []
    for side, step in enumerate((7, 13)):
        text = " ".join(f"{side}w{n * step % 1000}" for n in range(12_000))
        record = line(0, text)
        record["asks"] *= 20
        record["answers"] *= 20
        sides.append(write(tmp_path / f"{side}.jsonl", [record]))
    page = look(at(start(*sides), "compare"))
    page.locator(".row").first.click()
    expect(page.locator(".one-side .note").first).to_contain_text("too different", timeout=4000)
    page.keyboard.press("d")
    expect(page.locator(".one-side .said").first).to_contain_text("0w7")


# Services of the other dialect


def completion(finish: str = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": "An answer", **message}
    usage = {"prompt_tokens": 1000, "completion_tokens": 234, "total_tokens": 1234}
    choice = {"index": 0, "message": said, "finish_reason": finish}
    return {"object": "chat.completion", "model": "gpt-x", "choices": [choice], "usage": usage}


def test_reasoning_is_folded_away_and_ends_are_a_filter(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    replies = [completion(reasoning_content="Let me see"), completion("length")]
    lines = [line(n, "") | {"answers": [told]} for n, told in enumerate(replies)]
    site = start(write(tmp_path / "out.jsonl", lines))
    page = look(at(site, "overview"))
    expect(page.locator(".tile", has_text="Tokens")).to_contain_text("2,468")
    page.goto(at(site, "lines"))
    page.locator(".row").first.click()
    reasoning = page.locator("details", has_text="Reasoning")
    expect(reasoning).to_have_count(1)
    expect(page.get_by_text("Let me see")).to_be_hidden()
    reasoning.locator("summary").click()
    expect(page.get_by_text("Let me see")).to_be_visible()
    expect(page.locator(".answer")).to_contain_text("1,000 + 234 tokens")
    page.get_by_label("End of the answer").select_option(label="length (1)")
    expect(page.locator(".row")).to_have_count(1)
    page.locator(".row").first.click()
    expect(page.locator(".answer")).to_contain_text("ended by length")


def test_table_has_columns_that_sort_and_filter(
    look: Callable[..., Page], start: Callable[..., Site], tmp_path: Path
) -> None:
    records = [line(n, "word " * (n % 7 + 1)) for n in range(0, 140, 2)]
    for number, record in enumerate(records):
        record["extra"] = {"topic": "physics" if number % 3 else "art", "shelf": number}
    page = look(at(start(write(tmp_path / "out.jsonl", records)), "lines"))
    page.get_by_role("button", name="Table").click()
    columns = page.locator(".columns")
    expect(columns).to_contain_text("IdAskAnswerSecondsCallsLengthTokensEndtopicshelf")
    first = page.locator(".row").first
    page.get_by_role("button", name="Seconds").click()
    expect(first).to_contain_text("7.5 s")
    page.get_by_role("button", name="Seconds").click()
    expect(first).to_contain_text("1.5 s")
    page.get_by_role("button", name="Length").click()
    expect(first.locator(".number").nth(2)).to_have_text("35")
    search, status = page.get_by_label("Search"), page.locator(".status")
    search.fill("seconds>7")
    expect(status).to_have_text("10 of 70 lines")
    search.fill("seconds>7 extra.topic=art")
    expect(status).to_have_text("4 of 70 lines")
    search.fill(r"/question 1\d0$/")
    expect(status).to_have_text("0 of 70 lines")
    search.fill(r"/question 1\d0\b/")
    expect(status).to_have_text("4 of 70 lines")
    expect(page.locator(".row mark").first).to_have_text(re.compile(r"Question 1\d0"))
    search.fill("/not closed (/")
    expect(status).to_have_text("0 of 70 lines")
    search.fill("")
    shot(page, "table")
    assert findings(page) == []
    first.click()
    expect(page.locator(".detail .said")).to_be_visible()
    shot(page, "table-reading")
    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
