"""The table of codes and wordings: each row by a refusal that a service has sent, or ours does."""

from __future__ import annotations

from typing import Any

import pytest

from gpt4batch.dialects.base import Reason, Refusal, Thread
from gpt4batch.dialects.gpt4api import Gpt4Api
from gpt4batch.dialects.meaning import Words, error_text, meaning_of_error, refusal_of
from gpt4batch.dialects.waits import seconds_of
from gpt4batch.dialects.wordings import CODES, WORDINGS
from gpt4batch.lines import rawjson

SAID: list[tuple[int, str, Reason]] = [
    # The service forgot the conversation or an upload.
    (400, "conversation not found", Reason.HISTORY_LOST),
    (400, "Conversation 7d-1 does not exist.", Reason.HISTORY_LOST),
    (400, "invalid conversation_id", Reason.HISTORY_LOST),
    (400, "Can't load conversation 2d8a64fd-bf2c", Reason.HISTORY_LOST),
    (409, "parent_message_id is not the last message", Reason.HISTORY_LOST),
    (
        409,
        "parent_message_id is m-1, but the last message of conversation c-1 is not there yet",
        Reason.HISTORY_LOST,
    ),
    (422, "会话不存在", Reason.HISTORY_LOST),
    (404, "no such thing", Reason.HISTORY_LOST),
    (410, "", Reason.HISTORY_LOST),
    (400, "attachments: id 'file-1' was never uploaded", Reason.UPLOAD_LOST),
    (400, "parts: asset_pointer 'file-service://file-1' was never uploaded", Reason.UPLOAD_LOST),
    (400, "parts: file-service://file-1 belongs to another conversation", Reason.UPLOAD_LOST),
    (
        400,
        "attachments: file-1 is not described as its upload's reply did",
        Reason.UPLOAD_LOST,
    ),
    (400, "File file-1 has expired", Reason.UPLOAD_LOST),
    (422, "附件已过期", Reason.UPLOAD_LOST),
    # It forgot nothing.
    (400, "the last message contains disallowed content", Reason.FILTERED),
    (400, "An unknown error occurred in this conversation", Reason.REJECTED),
    (400, "invalid attachment type", Reason.REJECTED),
    (404, "The model gpt-9 does not exist", Reason.REJECTED),
    (404, "there is no /standard/all-tool here", Reason.REJECTED),
    (404, "模型不存在", Reason.REJECTED),
    # A limit a minute.
    (429, "You exceeded your current quota, see billing. Please retry in 4.2s.", Reason.RATE_LIMIT),
    (429, "Quota exceeded for GenerateContentRequestsPerMinutePerProject", Reason.RATE_LIMIT),
    (429, "Allocated quota exceeded, please increase your quota limit", Reason.RATE_LIMIT),
    (429, "当前模型每分钟请求额度已用完", Reason.RATE_LIMIT),
    (403, "请求过于频繁", Reason.RATE_LIMIT),
    (503, "rate limit reached", Reason.RATE_LIMIT),
    (429, "whatever", Reason.RATE_LIMIT),
    # An account that is empty.
    (400, "Your credit balance is too low to access the API", Reason.EMPTY_ACCOUNT),
    (400, "account balance is insufficient", Reason.EMPTY_ACCOUNT),
    (429, "used all available credits or reached its spending limit", Reason.UNCLEAR_QUOTA),
    (400, "会话不存在或已过期", Reason.HISTORY_LOST),
    (403, "Insufficient Balance", Reason.EMPTY_ACCOUNT),
    (403, "您的账户余额不够", Reason.EMPTY_ACCOUNT),
    (400, "账户已欠费,请充值", Reason.EMPTY_ACCOUNT),
    (400, "积分不足", Reason.EMPTY_ACCOUNT),
    (402, "pay", Reason.EMPTY_ACCOUNT),
    # An account that may be empty.
    (403, "user quota is not enough", Reason.UNCLEAR_QUOTA),
    (403, "预扣费额度失败, 用户剩余额度: $0.00, 需要预扣费额度: $0.02", Reason.UNCLEAR_QUOTA),
    (429, "You have exceeded your quota", Reason.UNCLEAR_QUOTA),
    (403, "You've reached your usage limit for this billing cycle", Reason.UNCLEAR_QUOTA),
    (429, "Quota exceeded: 50 requests per day. Please retry in 12s.", Reason.UNCLEAR_QUOTA),
    (429, "今日额度已用完", Reason.UNCLEAR_QUOTA),
    (500, "额度已用完", Reason.UNCLEAR_QUOTA),
    # Others.
    (401, "余额不足", Reason.AUTH),
    (403, "flagged by moderation: 余额不足", Reason.FILTERED),
    (403, "内容违规", Reason.FILTERED),
    (413, "file exceeds your storage quota", Reason.REJECTED),
    (503, "try again in 40s", Reason.CROWDED),
    (502, "bad gateway", Reason.TRANSIENT),
    (409, "busy", Reason.TRANSIENT),
    (403, "no", Reason.REJECTED),
]


def meaning(status: int, doc: Any, said: str = "", **headers: str) -> Reason:
    return refusal_of(status, headers, rawjson.dumps(doc), said).reason


@pytest.mark.parametrize(("status", "words", "reason"), SAID)
def test_words_mean_what_the_table_says(status: int, words: str, reason: Reason) -> None:
    assert meaning(status, {"error": {"message": words, "code": status}}) is reason
    assert meaning(status, {"detail": words}) is reason
    assert meaning(status, [{"error": {"msg": words}}]) is reason
    assert refusal_of(status, {}, words.encode()).reason is reason


@pytest.mark.parametrize("wording", WORDINGS)
def test_every_wording_is_met_by_one_of_the_samples(wording: Any) -> None:
    quotes = {status: status != 429 for status, *_ in SAID}
    assert any(
        Words(words, "", quotes=quotes[status]).find(wording)
        for status, words, reason in SAID
        if reason in (wording.reason, Reason.RATE_LIMIT)
    )


@pytest.mark.parametrize(("code", "reason"), CODES.items())
@pytest.mark.parametrize("place", ["code", "type", "status", "error", "details"])
def test_code_means_what_the_table_says_wherever_it_stands(
    code: str, reason: Reason, place: str
) -> None:
    error: dict[str, Any] = {"message": "no", place: code}
    if place == "details":
        error["details"] = [{"reason": code.upper()}]
    nested = error if place == "error" else {"error": error}
    assert meaning(400, nested) is reason
    assert meaning(429, nested) is reason


@pytest.mark.parametrize(
    ("status", "doc", "reason"),
    [
        (402, {"error": {"metadata": {"limit_source": "openrouter_in_flight_budget"}}}, "UNCLEAR"),
        (400, {"code": "Arrearage", "message": "Access denied"}, "EMPTY"),
        (
            429,
            {"error": {"type": "insufficient_quota", "code": "credit_balance_exhausted"}},
            "EMPTY",
        ),
        (429, {"error": {"type": "tokens", "code": "rate_limit_exceeded"}}, "RATE"),
    ],
)
def test_code_that_says_more_comes_first(status: int, doc: Any, reason: str) -> None:
    assert meaning(status, doc).name.startswith(reason)


@pytest.mark.parametrize("field", ["quotaId", "quotaMetric"])
def test_quota_named_in_the_details_says_for_how_long(field: str) -> None:
    def body(name: str) -> Any:
        details = [{"violations": [{field: name}]}, {"retryDelay": "27s"}]
        return [{"error": {"code": 429, "message": "You exceeded your quota", "details": details}}]

    assert meaning(429, body("GenerateRequestsPerMinutePerProject")) is Reason.RATE_LIMIT
    assert meaning(429, body("GenerateRequestsPerDayPerProject")) is Reason.UNCLEAR_QUOTA


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        (403, "Refused: 账户余额不足怎么办", "我的账户余额不足怎么办?"),
        (400, "not answered: why is my quota exceeded", "Why is  my quota\nexceeded?"),
        (400, 'your message "the balance: insufficient funds" was refused', ""),
        (403, "您的问题“余额不足”不能回答", ""),
    ],
)
def test_words_that_repeat_the_prompt_are_not_the_services_own(
    status: int, words: str, said: str
) -> None:
    assert meaning(status, {"error": {"message": words}}, said) is Reason.REJECTED


def test_long_text_is_no_word_about_money() -> None:
    words = "cannot be answered: " + "what does 余额不足 mean? " * 20
    assert meaning(400, {"message": words}) is Reason.REJECTED


def test_402_that_names_a_wait_is_unclear() -> None:
    assert meaning(402, {}, **{"retry-after": "3"}) is Reason.UNCLEAR_QUOTA
    assert meaning(402, {"error": {"retry_after": 3}}) is Reason.UNCLEAR_QUOTA


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("Rate limit reached. Please try again in 40s", 40),
        ("Please try again in 5.289s. Visit https://example.com/1", 5.289),
        ("try again in 6m0s", 360),
        ("Try again in 120ms.", 0.12),
        ("Please retry in 43.9 seconds", 43.9),
        ("retry after 2 minutes", 120),
        ("wait 1 minute and 5 seconds", 65),
        ("请40秒后重试", 40),
        ("请求过快,请在 1 分钟后再试", 60),
        ("请等待40秒", 40),
        ("Limit 200, Used 200, Requested 1", None),
        ("the request took 40 seconds", None),
        ("请稍后再试", None),
    ],
)
def test_wait_that_is_told_in_words_is_read(words: str, seconds: float | None) -> None:
    found = refusal_of(429, {}, rawjson.dumps({"error": {"message": words}}))
    assert found.after == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("doc", "seconds"),
    [
        ({"error": {"details": [{"retryDelay": "27s"}]}}, 27),
        ([{"error": {"details": [{"@type": "x"}, {"retryDelay": "4.5s"}]}}], 4.5),
        ({"retry_after": 12}, 12),
        ({"error": {"retry_after_ms": 1500}}, 1.5),
        ({"retry_after": "20"}, 20),
        ({"retry_after": True}, None),
        ({"retry_after": "soon"}, None),
    ],
)
def test_wait_that_is_told_in_a_field_is_read(doc: Any, seconds: float | None) -> None:
    assert refusal_of(429, {}, rawjson.dumps(doc)).after == seconds


def test_wait_in_the_prompt_is_none_of_the_services() -> None:
    body = rawjson.dumps({"error": {"message": "refused: try again in 40s"}})
    assert refusal_of(429, {}, body, "say: try again in 40s").after is None


@pytest.mark.parametrize("text", ["", "soon", "4 weeks", "s"])
def test_text_that_is_no_duration_has_no_seconds(text: str) -> None:
    assert seconds_of(text) is None


@pytest.mark.parametrize(
    ("reply", "thread"),
    [
        ({"conversation_id": "c", "message_id": "m"}, Thread("c", "m")),
        ({"conversation_id": "c", "contents": [{"message": {"id": "m"}}]}, Thread("c", "m")),
        ({"conversation_id": 1, "message_id": 2}, Thread("1", "2")),
        ({"message_id": "m", "contents": [{"conversation_id": "c"}, 3]}, Thread("c", "m")),
        ({"conversation_id": "c", "contents": [{"message": "m"}]}, None),
        ({"conversation_id": "", "message_id": "m", "contents": None}, None),
        ({}, None),
    ],
)
def test_thread_of_a_reply(reply: dict[str, Any], thread: Thread | None) -> None:
    found = Gpt4Api().thread(reply)
    assert (None if isinstance(found, Refusal) else found) == thread


@pytest.mark.parametrize("piece", [b"[%s]", b'{"error":%s}', b'{"details":[%s]}'])
def test_refusal_that_is_nested_without_end_is_read_all_the_same(piece: bytes) -> None:
    body = b'"quota exceeded"'
    for _ in range(900):
        body = piece % body
    assert refusal_of(400, {}, body).reason is Reason.REJECTED


def test_error_beside_an_empty_reply_is_read_in_the_shape_of_minimax() -> None:
    doc = {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}
    assert error_text(doc) == "insufficient balance"
    assert meaning_of_error(doc) is Reason.EMPTY_ACCOUNT
