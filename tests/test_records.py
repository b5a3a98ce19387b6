from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.errors import ReplyError
from gpt4batch.lines import rawjson
from gpt4batch.lines.links import with_downloads
from gpt4batch.lines.parse import OWN_KEYS, BadLine, parse_line
from gpt4batch.lines.record import error_record, render

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)
UNKNOWN = st.dictionaries(st.text().filter(lambda name: name not in OWN_KEYS), JSON, max_size=4)
IDS = st.none() | st.text() | st.integers(-(2**63), 2**64 - 1)
ASKS = st.lists(
    st.fixed_dictionaries(
        {"content": st.text()},
        optional={
            "id": IDS,
            "images": st.lists(st.text(), max_size=2),
            "files": st.lists(st.text(), max_size=2),
            "image": st.text(),
            "note": JSON,
        },
    ),
    min_size=1,
    max_size=3,
)
LINES = st.fixed_dictionaries({"asks": ASKS}, optional={"id": IDS, "extra": JSON})
EXACT = [
    b'{"big":123456789012345678901234567890,"tiny":0.1000000000000000055511151231257827}',
    b'{"x":1,"x":2,"x":[1,1]}',
    rb'{"cut":"\ud83d and \udc00","a\ud800":1}',
    '{"lines":"a\u2028b\u0085c"}'.encode(),
    rb'{"escaped":"\u00e9\/\u4f60"}',
    b"[1.0,1e0,100e-2,-0.0,-0]",
    b'{"deep":%s%s}' % (b"[" * 200, b"]" * 200),
]


def line_of(raw: bytes) -> bytes:
    return b'{"asks":[{"content":"x"}],' + raw


@given(LINES, UNKNOWN, st.randoms())
def test_line_comes_back_with_every_key_in_the_order_of_the_contract(
    line: dict[str, Any], unknown: dict[str, Any], random: Any
) -> None:
    items = [*line.items(), *unknown.items()]
    random.shuffle(items)
    given = dict(items)
    raw = rawjson.dumps(given)
    answers = [b'{"a":%d}' % place for place in range(len(line["asks"]))]
    error = {"code": 501, "message": "m"}
    out = rawjson.loads(render(parse_line(raw).raw, answers, error, {"started": 1}))
    known = [name for name in ("id", "asks") if name in given]
    more = ["extra"] if "extra" in given else []
    names = [name for name in given if name not in OWN_KEYS]
    assert list(out) == [*known, "answers", "iErr", *more, "meta", *names]
    assert {name: out[name] for name in given} == given
    assert out["answers"] == [rawjson.loads(answer) for answer in answers]


@given(LINES, UNKNOWN)
def test_output_line_is_an_input_line_with_the_same_key(
    line: dict[str, Any], unknown: dict[str, Any]
) -> None:
    first = parse_line(rawjson.dumps({**unknown, **line}))
    answers = [b'{"a":1}' for _ in first.asks]
    second = parse_line(render(first.raw, answers))
    assert second.key == first.key
    assert second.asks == first.asks
    assert second.done
    assert not first.done
    assert second.answers() == answers
    assert render(second.raw, second.answers()) == second.raw


@pytest.mark.parametrize("text", EXACT)
def test_extra_and_unknown_values_come_back_byte_for_byte(text: bytes) -> None:
    raw = line_of(b'"extra":' + text + b',"zz":' + text + b"}")
    out = render(raw, [])
    assert b'"extra":' + text + b"," in out
    assert out.endswith(b'"zz":' + text + b"}")


@pytest.mark.parametrize("text", EXACT)
def test_answer_comes_back_byte_for_byte_with_downloads_after_it(text: bytes) -> None:
    answer = b'{"contents":[1],"more":' + text + b"}"
    out = with_downloads(answer, [{"origin": "u", "local": "n"}])
    assert out == answer[:-1] + b',"spec_downloads":[{"origin":"u","local":"n"}]}'
    again = with_downloads(out, [{"origin": "v", "local": "m"}])
    assert again == answer[:-1] + b',"spec_downloads":[{"origin":"v","local":"m"}]}'
    assert parse_line(render(line_of(b'"id":1}'), [out])).answers() == [out]


def test_unknown_key_that_stands_twice_comes_back_twice() -> None:
    assert render(line_of(b'"k":1,"k":2}'), []).endswith(b'"k":1,"k":2}')


def test_line_over_several_physical_forms_of_white_space_is_one_line() -> None:
    raw = b'{ "asks" : [ {\t"content":"x"\r} ] , "k" : 1 }'
    out = render(raw, [b'{\n  "contents": [1]\n}'])
    assert b"\n" not in out
    assert rawjson.loads(out)["answers"] == [{"contents": [1]}]


def test_failed_line_has_code_and_message_first() -> None:
    error = ReplyError("no contents", b'{"n":1.00000000000000000000001}')
    error.attempts = 3
    out = render(line_of(b'"id":1}'), [], error_record(error))
    assert (
        b'"iErr":{"code":200,"message":"no contents","stage":"reply","attempts":3,'
        b'"reply":{"n":1.00000000000000000000001}}'
    ) in out


def test_line_on_success_has_no_error_key() -> None:
    raw = line_of(b'"iErr":{"code":501,"message":"old"},"answers":null,"meta":{"old":1}}')
    assert list(rawjson.loads(render(raw, [b"{}"]))) == ["asks", "answers"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[]", "not a JSON object but a list"),
        (b"1", "not a JSON object but a number"),
        (b"nul", "not JSON"),
        (b"{}", "asks is missing$"),
        (b'{"messages":[]}', 'asks is missing: "messages" is of another tool; here it is {"asks"'),
        (b'{"asks":null}', "asks must be a list"),
        (b'{"asks":[]}', "at least one ask"),
        (b'{"asks":{}}', "asks must be a list"),
        (b'{"asks":["x"]}', r"asks\[0\] must be an object, not text"),
        (b'{"asks":[{"id":1}]}', r"asks\[0\]\.content is missing"),
        (b'{"asks":[{"content":"a"},{"content":1}]}', r"asks\[1\]\.content must be text"),
        (b'{"asks":[{"content":"a","id":true}]}', r"asks\[0\]\.id must be a string or an integer"),
        (b'{"asks":[{"content":"a","id":1.5}]}', r"asks\[0\]\.id"),
        (b'{"id":[],"asks":[{"content":"a"}]}', "id must be a string or an integer"),
        (b'{"asks":[{"content":"a","images":[1]}]}', r"asks\[0\]\.images must be a list of paths"),
        (b'{"asks":[{"content":"a","files":{}}]}', r"asks\[0\]\.files"),
        (b'{"asks":[{"content":"a","file":7}]}', r"asks\[0\]\.file"),
        (b'{"asks":[{"content":"a"}],"answers":"x"}', "answers must be a list"),
        (b'{"asks":[{"content":"a"}],"answers":[1]}', r"answers\[0\] must be an object"),
        (b'{"asks":[{"content":"a"}],"answers":[{},{}]}', "2 answers to 1 asks"),
        (b'{"asks":[{"content":"a"}],"iErr":"x"}', "iErr must be an object"),
        (b'{"asks":[{"content":"\xff"}]}', "not UTF-8"),
        (b'{"asks":[{"content":"a","params":{"a":%s}}]}' % (b"[" * 990 + b"]" * 990), "too deeply"),
    ],
)
def test_line_of_the_wrong_shape_is_refused_with_the_reason(raw: bytes, words: str) -> None:
    with pytest.raises(BadLine, match=words):
        parse_line(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"asks":[{"content":"a","images":null,"files":[],"image":"","file":null}]}',
        b'{"id":null,"asks":[{"id":null,"content":""}],"answers":[],"iErr":{},"extra":null}',
        b'{"id":12345678901234567890123,"asks":[{"content":"a"}]}',
    ],
)
def test_line_with_empty_or_big_values_is_taken(raw: bytes) -> None:
    line = parse_line(raw)
    assert not line.done
    assert line.answered == 0


def test_single_path_counts_like_a_list_of_one() -> None:
    single = parse_line(b'{"asks":[{"content":"a","image":"i","file":"f"}]}')
    many = parse_line(b'{"asks":[{"content":"a","images":["i"],"files":["f"]}]}')
    assert single.asks == many.asks
    assert single.key == many.key


def test_key_depends_on_id_and_asks_alone() -> None:
    base = {"id": 1, "asks": [{"id": "a", "content": "x", "files": ["f"]}]}
    key = parse_line(rawjson.dumps(base)).key
    same = base | {"extra": 1, "model": "m", "iErr": {"code": 1}, "meta": {}, "other": 2}
    assert parse_line(rawjson.dumps(same)).key == key
    asks: list[dict[str, Any]] = [
        {"id": "a", "content": "y", "files": ["f"]},
        {"id": "b", "content": "x", "files": ["f"]},
        {"id": "a", "content": "x", "files": ["g"]},
        {"id": "a", "content": "x", "images": ["f"]},
        {"id": "a", "content": "x"},
    ]
    others = [{"id": 1, "asks": [ask]} for ask in asks]
    others += [{"id": "1", "asks": base["asks"]}, {"asks": base["asks"]}]
    others += [{"id": 1, "asks": [*asks[:1], *asks[:1]]}]
    keys = {parse_line(rawjson.dumps(other)).key for other in others}
    assert len(keys) == len(others)
    assert key not in keys


@pytest.mark.parametrize("text", [b"1e19", b"-1e300", b"18446744073709551616.0"])
def test_an_id_written_as_a_float_beyond_64_bits_is_an_integer(text: bytes) -> None:
    line = parse_line(b'{"id":%s,"asks":[{"id":%s,"content":"a"}]}' % (text, text))
    assert (line.id, line.asks[0].id) == (int(float(text)), int(float(text)))


@pytest.mark.parametrize("text", [b"9" * 100_000, b"1.5", b"9e999"])
def test_a_number_that_is_no_integer_or_too_long_is_no_id(text: bytes) -> None:
    with pytest.raises(BadLine, match="id must be a string or an integer"):
        parse_line(b'{"id":%s,"asks":[{"content":"a"}]}' % text)


def test_key_in_the_meta_of_an_input_is_the_users_own() -> None:
    text = b'{"asks":[{"content":"%s"}],"meta":{"key":"00112233445566778899aabbccddeeff"}}'
    one, other = parse_line(text % b"one"), parse_line(text % b"other")
    assert one.key != other.key
    assert one.key == parse_line(b'{"asks":[{"content":"one"}]}').key
