from __future__ import annotations

import pytest

from gpt4batch.service.file_names import local_name, suggested_name


def octets(text: str, charset: str) -> str:
    """Return a text as it comes out of a header: a character for each byte."""
    return text.encode(charset).decode("latin-1")


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        ('attachment; filename="=?UTF-8?B?5oql5ZGKLmNzdg==?="', "报告.csv"),
        ("attachment; filename==?utf-8?b?5oql5ZGKLmNzdg==?=", "报告.csv"),
        ('attachment; filename="=?GBK?B?sai45i5jc3Y=?="', "报告.csv"),
        ('attachment; filename="=?UTF-8?Q?a=20=E6=8A=A5.csv?="', "a 报.csv"),
        ('attachment; filename="=?UTF-8?B?5oql?= =?UTF-8?B?5ZGK?= 1.csv"', "报告 1.csv"),
        ('attachment; filename="=?no-such?B?5oql?=.csv"', "报.csv"),
        ('attachment; filename="=?UTF-8?B?!!!?=.csv"', ".csv"),
        ('attachment; filename="a=?.csv"', "a=?.csv"),
        (octets('attachment; filename="报告.csv"', "gbk"), "报告.csv"),
        (octets("attachment; filename=报告.csv", "utf-8"), "报告.csv"),
        (octets("attachment; filename=报告.csv", "gb18030"), "报告.csv"),
        (octets('attachment; filename="café.csv"', "latin-1"), "café.csv"),
        ('attachment; filename="报告.csv"', "报告.csv"),
        ("attachment; filename=%B1%A8%B8%E6.csv", "报告.csv"),
        ("attachment; filename=%E6%8A%A5%E5%91%8A.csv", "报告.csv"),
        ("attachment; filename*=UTF-8''%B1%A8%B8%E6.csv", "报告.csv"),
        ("attachment; filename*0*=UTF-8''%E6%8A%A5; filename*1=\" 1.csv\"", "报 1.csv"),
        ("attachment; filename*1=b.csv; filename*0=a", "ab.csv"),
        ('attachment; filename="C:\\dir\\报告.csv"', "C:\\dir\\报告.csv"),
        ('attachment; filename="R&amp;D.csv"', "R&D.csv"),
    ],
)
def test_name_of_a_header_is_read_in_every_usual_encoding(header: str, wanted: str) -> None:
    assert suggested_name("https://h/x", {"content-disposition": header}) == wanted


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://h/%B1%A8%B8%E6.csv?sig=1", "报告.csv"),
        ("https://h/%E6%8A%A5%E5%91%8A.csv", "报告.csv"),
        ("https://h/报告 1.csv", "报告 1.csv"),
        ("https://h/x?rscd=filename%3D%B1%A8%B8%E6.csv", "报告.csv"),
        ("https://h/x?rscd=filename%3D%25B1%25A8%25B8%25E6.csv", "报告.csv"),
        ("https://h/x?rscd=filename%3D报告.csv", "报告.csv"),
        ("https://h/x?rscd=filename%3D%22%3D%3FUTF-8%3FB%3F5oqlLmNzdg%3D%3D%3F%3D%22", "报.csv"),
        ("https://h/caf%E9.txt", "café.txt"),
    ],
)
def test_name_of_an_address_is_read_in_every_usual_encoding(url: str, wanted: str) -> None:
    assert suggested_name(url, {}) == wanted


@pytest.mark.parametrize(
    "mark", ["\u202e", "\u2066", "\u061c", "\u2028", "\ufeff", "\U000e0041", "\x1b", "\x85"]
)
def test_characters_that_turn_or_hide_a_name_are_not_in_it(mark: str) -> None:
    assert mark not in local_name("P", f"q{mark}", "a", f"photo{mark}gnp.exe")


def test_slash_that_is_written_as_an_escape_leads_nowhere() -> None:
    name = local_name("P", "q", "a", suggested_name("https://h/..%2F..%2Fpasswd", {}))
    assert "/" not in name
    assert name.endswith("_passwd")
