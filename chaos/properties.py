"""What holds for any input, name, reply and output; each property is a function of one case."""

from __future__ import annotations

import contextlib
import json  # noqa: TID251 - the judge of what is JSON must not be the code that is judged
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gpt4batch.dialects.known import GPT4API
from gpt4batch.errors import UsageError
from gpt4batch.journal.journal import Journal
from gpt4batch.journal.source import Source
from gpt4batch.lines import rawjson
from gpt4batch.lines.links import with_downloads
from gpt4batch.lines.parse import BadLine, parse_line
from gpt4batch.lines.record import State, render, render_bad
from gpt4batch.lines.steering import STEERING, printable
from gpt4batch.service.credentials import Credentials
from gpt4batch.service.file_names import local_name, suggested_name
from gpt4batch.service.retry import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

# -- what is thrown ----------------------------------------------------------------------------

ODD = ["\0", "\ud800", "\udfff", "\u2028", "\u0085", "\ufeff", "\r", "\n", "\t", "/", "\\", ".."]
ODD += ["😀", "CON", "nul.txt", "a" * 300, "语" * 200, "\x1b[2J", "\x9b", "\u202e", "%2e%2e%2f"]
ODD += ["&amp;", '"', "\ud83d\ude00"]
TEXT = st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=6)), max_size=6).map("".join)
NUMBERS = ["0", "-0", "-0.0", "1e5", "1E400", "123456789012345678901234567890", "0.1", "1e-400"]
NUMBERS += ["0.12345678901234567", "18446744073709551616", "-9223372036854775809", "1.0", "1.10"]


def json_text(depth: int = 3) -> st.SearchStrategy[str]:
    """Return JSON as text: numbers of any length, keys that stand twice, white space, escapes."""
    texts = st.one_of(TEXT, st.text(max_size=4))
    strings = st.one_of(texts.map(json.dumps), texts.map(_unescaped))
    leaves = st.one_of(
        strings, st.sampled_from(NUMBERS), st.sampled_from(["true", "false", "null"])
    )
    spaces = st.sampled_from(["", "", " ", "\t", "  "])

    def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        pairs = st.tuples(strings, spaces, inner).map(lambda pair: f"{pair[0]}:{pair[1]}{pair[2]}")
        lists = st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
        return lists | st.lists(pairs, max_size=3).map(lambda items: "{" + ",".join(items) + " }")

    return st.recursive(leaves, grown, max_leaves=2**depth)


def _unescaped(text: str) -> str:
    """Write a string with as little escaping as JSON allows; half an emoji has to be escaped."""
    whole = json.dumps(text, ensure_ascii=False)
    return "".join(c if not 0xD800 <= ord(c) < 0xE000 else f"\\u{ord(c):04x}" for c in whole)


NAMES = st.sampled_from(["id", "asks", "answers", "iErr", "extra", "meta", "model", "content", "x"])
MEMBERS = st.lists(st.tuples(NAMES | TEXT, json_text()), max_size=6)
OBJECTS = MEMBERS.map(
    lambda pairs: "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}"
)
ASKS = st.lists(
    st.builds(lambda text, name: {"id": name, "content": text}, TEXT, st.integers() | TEXT),
    min_size=1,
    max_size=3,
)
BYTES = st.one_of(
    st.binary(max_size=60),
    OBJECTS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.tuples(OBJECTS, st.integers(0, 200), st.binary(max_size=3)).map(
        lambda cut: cut[0].encode("utf-8", "surrogatepass")[: cut[1]] + cut[2]
    ),
)
HEADERS = st.dictionaries(
    st.sampled_from(["content-disposition", "retry-after", "etag"]), TEXT, max_size=2
)
URLS = st.one_of(
    TEXT,
    st.builds("http://{}/{}?rscd={}".format, TEXT, TEXT, TEXT),
    st.builds("https://host/a?response-content-disposition=attachment;filename={}".format, TEXT),
)

# -- what holds --------------------------------------------------------------------------------


def any_bytes_are_a_line_or_a_bad_one(raw: bytes) -> None:
    try:
        line = parse_line(raw)
    except BadLine as error:
        kept = rawjson.loads(render_bad(raw, str(error)))
        assert kept["iErr"]["stage"] == "input"
    else:
        assert len(line.key) == 16
        assert len(line.answers()) == line.answered <= len(line.asks)
        assert parse_line(render(raw, line.answers(), line.error, line.meta)).key == line.key


def a_line_comes_back_as_it_went_in(extra: str, more: str, asks: list[Any], answer: str) -> None:
    raw = f'{{"extra":{extra},"asks":{json.dumps(asks)},"más":{more}}}'.encode()
    reply = f'{{"contents":[{answer}]}}'.encode()
    out = render(raw, [reply] * len(asks), None, {"note": 1})
    assert b"\n" not in out
    members = dict(rawjson.members(out))
    assert members["extra"] == extra.encode().strip()
    assert members["más"] == more.encode().strip()
    line = parse_line(out)
    assert line.done
    assert line.answers() == [reply] * len(asks)
    assert line.key == parse_line(raw).key


def json_is_cut_where_json_says(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        doc = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(doc, dict):
        assert {name: json.loads(value) for name, value in rawjson.members(raw)} == doc
    if isinstance(doc, list):
        assert [json.loads(value) for value in rawjson.elements(raw)] == doc


def anything_dumped_is_read_again(value: Any) -> None:
    wanted = json.loads(json.dumps(value))  # two halves of an emoji become one
    assert rawjson.loads(rawjson.dumps(value)) == wanted
    assert rawjson.loads(rawjson.pretty(value)) == wanted
    assert b"\n" not in rawjson.dumps(value)


def a_name_lies_in_the_folder(prefix: str, line_id: str, ask_id: str, suggested: str) -> None:
    name = local_name(prefix, line_id, ask_id, suggested)
    assert 0 < len((name + ".part").encode()) <= 255
    assert name not in (".", "..")
    assert not set(name) & set('/\\:*?"<>|\0\n\r')
    assert not STEERING.search(name)
    assert (Path("/folder") / name).parent == Path("/folder")


def any_address_suggests_a_name(url: str, headers: dict[str, str]) -> None:
    with contextlib.suppress(ValueError):  # an address that is none was refused before
        a_name_lies_in_the_folder("P", "q", "a", suggested_name(url, headers))


def any_header_is_a_time_or_none(text: str) -> None:
    found = retry_after({"retry-after": text, "retry-after-ms": text})
    assert found is None or 0 <= found < float("inf")


def nothing_printed_steers(text: str) -> None:
    shown = printable(text)
    assert not STEERING.search(shown)
    raw = rawjson.dumps(text)
    assert rawjson.loads(rawjson.escaped_controls(raw)) == rawjson.loads(raw)
    assert not STEERING.search(rawjson.escaped_controls(raw).decode())


def any_reply_is_taken_apart(text: str, links: list[str]) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    try:
        reply = rawjson.loads(raw)
    except rawjson.JSONError:
        return
    if isinstance(reply, dict):
        GPT4API.links(reply)
        list(GPT4API.messages(reply))
        noted = with_downloads(rawjson.one_line(raw), [{"origin": link} for link in links])
        found = [item["origin"] for item in rawjson.loads(noted)["spec_downloads"]]
        assert found == json.loads(json.dumps(links))
    stored = Credentials.from_reply(raw)
    assert stored is None or stored.expires is None or stored.expires.tzinfo


def any_output_is_gone_on_from(
    asks: list[list[dict[str, Any]]], junk: list[bytes], end: bytes
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [rawjson.dumps({"asks": some}) for some in asks]
        (folder / "in.jsonl").write_bytes(b"\n".join(texts))
        answer = b'{"contents":[1]}'
        done = [render(text, [answer] * len(some)) for text, some in zip(texts, asks, strict=True)]
        mixed = [piece.replace(b"\n", b" ") for piece in junk]
        (folder / "out.jsonl").write_bytes(b"\n".join([*mixed, *done]) + b"\n" + end)
        _gone_on_from(folder, [line["asks"] for line in map(rawjson.loads, texts)])


def _gone_on_from(folder: Path, asks: list[Any]) -> None:
    journal = Journal(folder / "out.jsonl", fsync="never")
    journal.lock()
    source = Source(str(folder / "in.jsonl"))
    try:
        journal.open(source, fix=True)
        journal.start(fix=True)
        assert all(journal.state(index) is State.DONE for index in range(len(asks)))
        journal.finish()
    except UsageError as error:
        raise AssertionError(str(error)) from error
    finally:
        journal.close()
        source.close()
    lines = [rawjson.loads(line) for line in (folder / "out.jsonl").read_bytes().split(b"\n")[:-1]]
    assert [line["asks"] for line in lines] == asks


PROPERTIES: list[tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...], int, bool]] = [
    (any_bytes_are_a_line_or_a_bad_one, (BYTES,), 20, True),
    (a_line_comes_back_as_it_went_in, (json_text(), json_text(), ASKS, json_text()), 12, False),
    (json_is_cut_where_json_says, (json_text(4),), 14, True),
    (anything_dumped_is_read_again, (st.lists(TEXT | st.lists(TEXT), max_size=4),), 10, True),
    (a_name_lies_in_the_folder, (TEXT, TEXT, TEXT, TEXT), 14, True),
    (any_address_suggests_a_name, (URLS, HEADERS), 10, True),
    (any_header_is_a_time_or_none, (TEXT,), 6, True),
    (nothing_printed_steers, (TEXT,), 6, True),
    (any_reply_is_taken_apart, (OBJECTS, st.lists(TEXT, max_size=2)), 6, True),
    (
        any_output_is_gone_on_from,
        (st.lists(ASKS, min_size=1, max_size=4), st.lists(BYTES, max_size=3), BYTES),
        4,
        True,
    ),
]
"""Each property, what it is thrown, its share of the cases, and whether texts may be spliced."""


def fuzzed(number: int) -> Callable[[bytes], object]:
    """Return what throws the case that some bytes stand for at a property, for a fuzzer to call."""
    property_, strategies, _, _ = PROPERTIES[number]

    @hypothesis_settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.tuples(*strategies))
    def throw(case: tuple[Any, ...]) -> None:
        try:
            property_(*case)
        except Exception as error:
            raise AssertionError(f"{property_.__name__}{case!r}") from error

    return throw.hypothesis.fuzz_one_input  # type: ignore[attr-defined, no-any-return]


DRAWN = 300


def check(number: int, cases: int, first: int) -> int:
    """Throw a number of cases at a property, from a seed; return how many were thrown.

    The first ones are drawn, and made as small as can be where the property does not hold; the
    others are made of those, which is a hundred times faster.
    """
    property_, strategies, _, spliced = PROPERTIES[number]
    drawn: list[tuple[Any, ...]] = []

    @seed(first)
    @hypothesis_settings(
        max_examples=min(cases, DRAWN),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*strategies))
    def throw(case: tuple[Any, ...]) -> None:
        drawn.append(case)
        property_(*case)

    throw()
    rand = random.Random(first)
    for _ in range(cases - len(drawn)):
        case = tuple(_mixed(column, rand, spliced=spliced) for column in zip(*drawn, strict=True))
        try:
            property_(*case)
        except Exception as error:
            error.add_note(f"{property_.__name__}{case!r}")
            raise
    return max(cases, len(drawn))


def _mixed(column: tuple[Any, ...], rand: random.Random, *, spliced: bool) -> Any:
    """Return one of the drawn values, or the beginning of one and the end of another."""
    one, other = rand.choice(column), rand.choice(column)
    if not spliced or rand.random() < 0.3 or type(one) is not type(other):
        return one
    if isinstance(one, str | bytes):
        return one[: rand.randint(0, len(one))] + other[rand.randint(0, len(other)) :]
    return one
