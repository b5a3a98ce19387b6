"""Build the documentation site in site/ from docs/ and the READMEs, with the Chinese in site/zh.

The pages are staged in build/docs first. A built page that would load anything from another host,
or that links to a page which is not there, is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
STAGE = ROOT / "build/docs"
SITE = ROOT / "site"
READMES = {"en": "README.md", "zh": "README.zh-CN.md"}
FOLDERS = {"en": ("docs", "docs/en"), "zh": ("docs/zh",)}
HOMES = {"en": SITE, "zh": SITE / "zh"}
TITLES = {
    "en": ("Start", "Reference", "Examples", "Changes", "Contributing", "Licence"),
    "zh": ("开始", "命令参考", "示例", "更新记录", "参与开发", "许可证"),
}
GROUPS = (
    (
        {"en": "Use", "zh": "使用"},
        ("files", "running", "services", "batch-files", "convert", "viewer", "fleet"),
    ),
    ({"en": "Reference", "zh": "参考"}, ("reference", "summary", "examples", "original")),
    (
        {"en": "Trust", "zh": "可靠性"},
        ("security", "faults", "performance", "chaos", "benchmarks"),
    ),
    ({"en": "Develop", "zh": "开发"}, ("architecture", "contributing", "changes", "licence")),
)
"""The pages besides the first one, as the navigation has them."""

KINDS = {".py": "python", ".sh": "sh", ".yml": "yaml", ".jsonl": "json"}
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)")
LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}

CONFIG = """[project]
site_name = "gpt4batch"
docs_dir = "{language}"
site_dir = "out-{language}"
use_directory_urls = false
nav = [
{nav}
]

[project.theme]
language = "{language}"
font = false
features = ["content.code.copy", "navigation.top", "search.highlight"]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
toggle.icon = "lucide/sun"
toggle.name = "☾"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
toggle.icon = "lucide/moon"
toggle.name = "☀"

[project.extra]
generator = false

[[project.extra.alternate]]
name = "English"
link = "{english}"
lang = "en"

[[project.extra.alternate]]
name = "中文"
link = "{chinese}"
lang = "zh"

[project.markdown_extensions]
attr_list = {{}}
tables = {{}}
toc.permalink = true
pymdownx.highlight.pygments_lang_class = true
pymdownx.superfences = {{}}
"""


def example_files() -> list[Path]:
    """Return the examples that are text, those of the top folder first."""
    found = [path for path in (ROOT / "examples").rglob("*") if path.is_file()]
    texts = [path for path in found if path.suffix not in (".png", ".pyc")]
    own = [ROOT / "example.jsonl", ROOT / "Containerfile"]
    return [*own, *sorted(texts, key=lambda path: (len(path.parts), path))]


def anchor_of(path: Path) -> str:
    """Return the anchor of a file on the page of examples."""
    return re.sub(r"\W+", "-", path.relative_to(ROOT).as_posix())


def examples_page(title: str) -> str:
    """Return a page with the source of every example."""
    parts = [f"# {title}\n"]
    for path in example_files():
        name = path.relative_to(ROOT).as_posix()
        kind = KINDS.get(path.suffix, "text")
        text = path.read_text().rstrip()
        parts.append(f"## {name} {{#{anchor_of(path)}}}\n\n````{kind}\n{text}\n````\n")
    return "\n".join(parts)


def own_pages(language: str) -> list[Path]:
    """Return the pages of their own that are written in a language, by name."""
    found = [path for folder in FOLDERS[language] for path in (ROOT / folder).glob("*.md")]
    return sorted((path for path in found if path.name != "reference.md"), key=name_of)


def shared_pages() -> list[Path]:
    """Return the pages of their own that both languages show in English."""
    parts = [ROOT / folder / "README.md" for folder in ("benchmarks", "chaos")]
    return [path for path in parts if path.exists()]


def name_of(page: Path) -> str:
    """Return the name of a page of its own in the site."""
    return f"{page.parent.name}.md" if page.name == "README.md" else page.name


def addresses(language: str) -> dict[Path, str]:
    """Return where the site has what the pages link to."""
    other, away = ("en", "../") if language == "zh" else ("zh", "zh/")
    found = {ROOT / READMES[other]: f"{away}index.html"}
    found |= {page: f"{away}{page.stem}.html" for page in own_pages(other)}
    found[ROOT / READMES[language]] = "index.md"
    found |= {ROOT / f"docs/{lang}/reference.md": "reference.md" for lang in READMES}
    found |= {ROOT / "CHANGELOG.md": "changes.md", ROOT / "CONTRIBUTING.md": "contributing.md"}
    found[ROOT / "LICENSE"] = "licence.md"
    found |= {page: name_of(page) for page in (*own_pages(language), *shared_pages())}
    for path in reversed(example_files()):
        link = f"examples.md#{anchor_of(path)}"
        found |= {path: link, path.parent: link} if path.parent != ROOT else {path: link}
    return found


def rewritten(page: Path, text: str, language: str) -> str:
    """Return a page with its links made links within the site, or no links where it has none."""
    known = addresses(language)

    def relink(found: re.Match[str]) -> str:
        if "://" in found["target"]:
            return found[0]
        target = (page.parent / found["target"]).resolve()
        if target.is_relative_to(ROOT / "docs/pictures"):
            return f"[{found['text']}](pictures/{target.name})"
        if target in known:
            return f"[{found['text']}]({known[target]}{found['anchor'] or ''})"
        return found["text"]

    return LINK.sub(relink, text)


def stage(language: str) -> list[tuple[str, str]]:
    """Write the pages of one language to the stage; return the title and file of each, in order."""
    folder = STAGE / language
    shutil.copytree(ROOT / "docs/pictures", folder / "pictures")
    pages: list[tuple[str, str]] = []
    start, reference, examples, changes, contributing, licence = TITLES[language]

    def add(title: str, name: str, source: Path, text: str | None = None) -> None:
        text = source.read_text() if text is None else text
        (folder / name).write_text(rewritten(source, text, language))
        pages.append((title, name))

    add(start, "index.md", ROOT / READMES[language])
    add(reference, "reference.md", ROOT / f"docs/{language}/reference.md")
    add(examples, "examples.md", ROOT / "examples", examples_page(examples))
    for path in (*own_pages(language), *shared_pages()):
        add(path.read_text().partition("\n")[0].lstrip("# "), name_of(path), path)
    add(changes, "changes.md", ROOT / "CHANGELOG.md")
    add(contributing, "contributing.md", ROOT / "CONTRIBUTING.md")
    text = f"# {licence}\n\n```text\n{(ROOT / 'LICENSE').read_text()}```\n"
    add(licence, "licence.md", ROOT / "LICENSE", text)
    return pages


def navigation(pages: list[tuple[str, str]], language: str) -> str:
    """Return the entries of the navigation, in groups; every page but the first has its place."""
    (first, index), *others = pages
    entries = {Path(name).stem: f"{{ '{title}' = '{name}' }}" for title, name in others}
    parts = [f"  {{ '{first}' = '{index}' }},"]
    for titles, names in GROUPS:
        inner = ", ".join(entries.pop(name) for name in names if name in entries)
        parts.append(f"  {{ '{titles[language]}' = [{inner}] }},")
    if entries:
        sys.exit(f"pages without a place in the navigation: {', '.join(entries)}")
    return "\n".join(parts)


def build(language: str) -> None:
    """Build the site of one language."""
    nav = navigation(stage(language), language)
    up = "../" if language == "zh" else ""
    config = STAGE / f"{language}.toml"
    config.write_text(
        CONFIG.format(
            language=language, nav=nav, english=f"{up}index.html", chinese=f"{up}zh/index.html"
        )
    )
    tool = Path(sys.executable).with_name("zensical")
    done = subprocess.run(
        [tool, "build", "--clean", "--config-file", config], capture_output=True, text=True
    )
    if done.returncode or "warning" in (done.stdout + done.stderr).lower():
        sys.exit(done.stdout + done.stderr)
    (STAGE / f"out-{language}/404.html").unlink()  # its links need the address of the site
    shutil.copytree(STAGE / f"out-{language}", HOMES[language])


class Page(HTMLParser):
    """What a built page loads and what it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the address that a tag names."""
        values = dict(attrs)
        if tag == "a" and (link := values.get("href")):
            self.links.append(link)
        elif (load := values.get(LOADS.get(tag, ""))) and values.get("rel") != "canonical":
            self.loads.append(load)


def faults() -> list[str]:
    """Return what is wrong with the built pages."""
    found = []
    for path in sorted(SITE.rglob("*.html")):
        page, name = Page(path.read_text()), path.relative_to(SITE)
        found += [f"{name} loads {load}" for load in page.loads if urlsplit(load).netloc]
        for link in (*page.links, *page.loads):
            parts = urlsplit(link)
            target = path.parent / unquote(parts.path)
            if not parts.scheme and not parts.netloc and parts.path and not target.exists():
                found.append(f"{name} links to {link}, which is not there")
    for path in SITE.rglob("*.css"):
        if re.search(r"(@import|url\()\s*[\"']?https?:", path.read_text()):
            found.append(f"{path.relative_to(SITE)} loads from another host")
    return found


def main() -> None:
    """Build both languages and look through what came out."""
    for folder in (STAGE, SITE):
        shutil.rmtree(folder, ignore_errors=True)
    for language in READMES:
        build(language)
    if found := faults():
        sys.exit("\n".join(found))
    print(f"{sum(1 for _ in SITE.rglob('*.html'))} pages: {SITE.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    main()
