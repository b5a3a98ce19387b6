from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.lines import rawjson

SPACE = st.sampled_from([b"", b" ", b"\t", b"\r\n "])
ATOMS = st.one_of(
    st.text().map(rawjson.dumps),
    st.integers().map(lambda number: b"%d" % number),
    st.integers(10**25, 10**40).map(lambda number: b"-%d.%de+7" % (number, number)),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: repr(number).encode()),
    st.sampled_from(
        [
            b"null",
            b"true",
            b"false",
            rb'"\ud83d"',
            rb'"\udc00\ud800 \\\""',
            b'"\xe2\x80\xa8\xc2\x85"',
            b"0.10000000000000001",
            b"1E400",
            rb'"\u0041[{]},:\""',
        ]
    ),
)


def objects(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(st.lists(st.tuples(st.text(max_size=3), values), max_size=4), SPACE).map(
        lambda drawn: (
            b"{%s}"
            % (b"," + drawn[1]).join(
                rawjson.dumps(key) + drawn[1] + b":" + drawn[1] + value for key, value in drawn[0]
            )
        )
    )


def arrays(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.tuples(st.lists(values, max_size=4), SPACE).map(
        lambda drawn: b"[" + (drawn[1] + b"," + drawn[1]).join(drawn[0]) + b"]"
    )


VALUES = st.recursive(ATOMS, lambda values: objects(values) | arrays(values), max_leaves=12)


@given(st.lists(st.tuples(st.text(), VALUES), max_size=6), SPACE)
def test_members_of_an_object_are_cut_out_as_they_stand(
    pairs: list[tuple[str, bytes]], space: bytes
) -> None:
    texts = [space + rawjson.dumps(name) + space + b":" + value + space for name, value in pairs]
    assert rawjson.members(space + b"{" + b",".join(texts) + space + b"}" + space) == pairs


@given(st.lists(VALUES, max_size=6), SPACE)
def test_elements_of_an_array_are_cut_out_as_they_stand(values: list[bytes], space: bytes) -> None:
    texts = [space + value + space for value in values]
    assert rawjson.elements(b"[" + b",".join(texts) + space + b"]") == values


@given(VALUES)
def test_value_put_into_one_line_is_the_same_value(value: bytes) -> None:
    line = rawjson.one_line(value)
    assert not set(b"\r\n") & set(line)
    assert rawjson.loads(line) == rawjson.loads(value)


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_text_of_any_code_points_comes_back(text: str) -> None:
    assert rawjson.loads(rawjson.dumps(text)) == text
    assert b"\n" not in rawjson.dumps(text)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"a":1', "not JSON"),
        (b"", "empty"),
        (b" \n", "empty"),
        ('{"a":1}'.encode("utf-16"), "in UTF-16"),
        ('{"a":"\u4e2d"}'.encode("utf-16-le"), "in UTF-16"),
        ('{"a":1}'.encode("utf-32-be"), "or UTF-32"),
        (b"NaN", "not JSON"),
        (b'{"a":Infinity}', "not JSON"),
        (b'{"a":1}{"a":2}', "not JSON"),
        (b"\xff", "not"),
        (b'"\xff"', "not UTF-8"),
        (b"[" * 500, "not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    ],
)
def test_text_that_is_no_json_is_refused_with_the_reason(raw: bytes, words: str) -> None:
    with pytest.raises(rawjson.JSONError, match=words):
        rawjson.loads(raw)


@pytest.mark.parametrize(
    "number",
    [
        "0",
        "-0",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "170135991163622164786776935302629425152",
        "1e308",
        "0.12345678901234567",
    ],
)
def test_a_number_is_the_same_beside_half_an_emoji(number: str) -> None:
    plain = rawjson.loads(b"[%s]" % number.encode())
    beside = rawjson.loads(b'[%s,"\\udfff"]' % number.encode())
    assert (beside[0], type(beside[0])) == (plain[0], type(plain[0]))


@pytest.mark.parametrize("digits", [309, 4300, 100_000])
def test_a_number_of_any_length_is_json(digits: int) -> None:
    assert rawjson.loads(b"[%s]" % (b"9" * digits))


@pytest.mark.parametrize("digits", [20, 309, 4300, 100_000])
@pytest.mark.parametrize("sign", [b"", b"-"])
def test_an_exact_number_of_any_length_is_json(digits: int, sign: bytes) -> None:
    (found,) = rawjson.exact(b"[%s]" % (sign + b"9" * digits))
    if digits < 4300:
        assert found == int(sign + b"9" * digits)


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
def test_an_exact_number_is_the_number_that_was_written(integer: int, number: float) -> None:
    assert rawjson.exact(b"[%d,%s]" % (integer, repr(number).encode())) == [integer, number]


def test_an_exact_text_that_is_nested_too_deeply_is_refused_with_the_reason() -> None:
    with pytest.raises(rawjson.JSONError, match="nested too deeply"):
        rawjson.exact(b"[" * 100_000 + b"]" * 100_000)


@pytest.mark.parametrize("depth", [200, 300, 600])
def test_what_was_read_can_be_written_however_deep_it_is(depth: int) -> None:
    raw = b'{"a":[1,{"b":%s}],"c":"\\ud800","d":null}' % (b"[" * depth + b"]" * depth)
    assert rawjson.dumps(rawjson.loads(raw)) == raw


def test_texts_that_are_ready_and_dates_are_written_beside_half_an_emoji() -> None:
    value = {"a": rawjson.Fragment(b'{"z":1.50}'), "b": date(2026, 11, 27), "c": ("\ud800", {})}
    assert rawjson.dumps(value) == b'{"a":{"z":1.50},"b":"2026-11-27","c":["\\ud800",{}]}'
