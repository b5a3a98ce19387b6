"""The table of services: each row by the refusals that the service is known to send."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gpt4batch.dialects.base import Answer, Reason, Refusal
from gpt4batch.dialects.openai import OpenAI
from gpt4batch.dialects.services import ADVICE, ANY, SERVICES, service_of
from gpt4batch.lines import rawjson

HOME = "http://127.0.0.1:8000/v1"
OPENAI = "https://api.openai.com/v1"
AZURE = "https://res.openai.azure.com/openai/v1/"
DEEPSEEK = "https://api.deepseek.com/v1"
DASHSCOPE = "https://dashscope.aliyuncs.com/compatible-mode/v1"
MOONSHOT = "https://api.moonshot.cn/v1"
GEMINI = "https://generativelanguage.googleapis.com/v1beta/openai"
OPENROUTER = "https://openrouter.ai/api/v1"
GROQ = "https://api.groq.com/openai/v1"


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "param": None, **more}}


def detailed(message: str, *details: Any) -> list[Any]:
    return [error(message, code=429, status="RESOURCE_EXHAUSTED", details=details)]


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "27s"}
DAY = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}
FILTER = {"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}
IN_FLIGHT = {"metadata": {"limit_source": "openrouter_in_flight_budget"}}
SAID: list[tuple[str, int, Any, dict[str, str], Reason]] = [
    # OpenAI
    (OPENAI, 401, error("Incorrect API key", code="invalid_api_key"), {}, Reason.AUTH),
    (
        OPENAI,
        429,
        error("spent", type="insufficient_quota", code="credit_balance_exhausted"),
        {},
        Reason.EMPTY_ACCOUNT,
    ),
    (
        OPENAI,
        429,
        error("You exceeded your current quota", code="insufficient_quota"),
        {},
        Reason.UNCLEAR_QUOTA,
    ),
    (
        OPENAI,
        429,
        error("Rate limit reached for m on tokens per min. Try again in 5.2s", type="tokens"),
        {},
        Reason.RATE_LIMIT,
    ),
    (OPENAI, 503, error("busy", code="server_is_overloaded"), {}, Reason.CROWDED),
    (OPENAI, 429, error("slow", code="slow_down"), {}, Reason.RATE_LIMIT),
    (OPENAI, 400, error("long", code="context_length_exceeded"), {}, Reason.REJECTED),
    (
        OPENAI,
        404,
        error("The model `x` does not exist", code="model_not_found"),
        {},
        Reason.REJECTED,
    ),
    # Azure
    (AZURE, 400, {"error": {"message": "filtered", **FILTER}}, {}, Reason.FILTERED),
    (AZURE, 429, error("Too many", code="429"), {"retry-after": "7"}, Reason.RATE_LIMIT),
    (AZURE, 404, error("no such", code="DeploymentNotFound"), {}, Reason.REJECTED),
    (AZURE, 401, error("Access denied due to invalid subscription key"), {}, Reason.AUTH),
    # DeepSeek
    (DEEPSEEK, 402, error("Insufficient Balance"), {"retry-after": "1"}, Reason.EMPTY_ACCOUNT),
    (DEEPSEEK, 429, error("Rate limit reached", type="rate_limit_error"), {}, Reason.CROWDED),
    (DEEPSEEK, 503, error("busy"), {}, Reason.TRANSIENT),
    # DashScope
    (
        DASHSCOPE,
        429,
        error("You exceeded your current quota", code="insufficient_quota"),
        {},
        Reason.RATE_LIMIT,
    ),
    (DASHSCOPE, 429, error("Requests rate limit exceeded"), {}, Reason.RATE_LIMIT),
    (DASHSCOPE, 429, error("too quickly", code="limit_burst_rate"), {}, Reason.RATE_LIMIT),
    (DASHSCOPE, 400, error("Access denied", code="Arrearage"), {}, Reason.EMPTY_ACCOUNT),
    (DASHSCOPE, 400, error("bad", code="data_inspection_failed"), {}, Reason.FILTERED),
    # Moonshot
    (MOONSHOT, 400, error("risk", type="content_filter"), {}, Reason.FILTERED),
    (MOONSHOT, 429, error("m", type="exceeded_current_quota_error"), {}, Reason.UNCLEAR_QUOTA),
    (MOONSHOT, 429, error("m", type="rate_limit_reached_error"), {}, Reason.RATE_LIMIT),
    (MOONSHOT, 429, error("m", type="engine_overloaded_error"), {}, Reason.CROWDED),
    (MOONSHOT, 403, error("usage limit for this billing cycle"), {}, Reason.UNCLEAR_QUOTA),
    # Gemini
    (GEMINI, 429, detailed("You exceeded your current quota", RETRY), {}, Reason.RATE_LIMIT),
    (GEMINI, 429, detailed("You exceeded your current quota", DAY), {}, Reason.UNCLEAR_QUOTA),
    (GEMINI, 429, detailed("You exceeded your current quota"), {}, Reason.UNCLEAR_QUOTA),
    (
        GEMINI,
        400,
        [error("API key not valid", details=[{"reason": "API_KEY_INVALID"}])],
        {},
        Reason.AUTH,
    ),
    # OpenRouter
    (OPENROUTER, 402, error("Insufficient credits", code=402), {}, Reason.EMPTY_ACCOUNT),
    (OPENROUTER, 402, error("wait", code=402, **IN_FLIGHT), {}, Reason.UNCLEAR_QUOTA),
    (OPENROUTER, 402, error("wait", code=402), {"retry-after": "3"}, Reason.UNCLEAR_QUOTA),
    (OPENROUTER, 403, error("flagged: moderation", code=403), {}, Reason.FILTERED),
    # Groq
    (GROQ, 498, error("full", code="capacity_exceeded"), {}, Reason.CROWDED),
    (GROQ, 498, error("full"), {}, Reason.CROWDED),
    (GROQ, 429, error("Limit", code="rate_limit_exceeded"), {}, Reason.RATE_LIMIT),
    # vLLM: of old flat, nested since, the code a number or a text
    (
        HOME,
        400,
        {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400},
        {},
        Reason.REJECTED,
    ),
    (
        HOME,
        404,
        error("The model `x` does not exist.", type="NotFoundError", code=404),
        {},
        Reason.REJECTED,
    ),
    (HOME, 400, error("bad", code="400"), {}, Reason.REJECTED),
    (HOME, 404, {"detail": "Not Found"}, {}, Reason.REJECTED),
    (HOME, 500, error("engine died", code=500), {}, Reason.TRANSIENT),
    # one-api and new-api
    (HOME, 403, error("m", code="insufficient_user_quota"), {}, Reason.EMPTY_ACCOUNT),
    (HOME, 403, error("m", code="pre_consume_token_quota_failed"), {}, Reason.UNCLEAR_QUOTA),
    (HOME, 400, error("m", code="sensitive_words_detected"), {}, Reason.FILTERED),
    (HOME, 503, error("无可用渠道", code="model_not_found"), {}, Reason.REJECTED),
    # Whoever they are: what is unclear is probed, what is forgotten is nothing
    (HOME, 429, error("You exceeded your current quota"), {}, Reason.UNCLEAR_QUOTA),
    (HOME, 402, {}, {"retry-after": "3"}, Reason.UNCLEAR_QUOTA),
    (HOME, 404, error("conversation not found"), {}, Reason.REJECTED),
    (HOME, 410, "", {}, Reason.REJECTED),
    (HOME, 498, error("odd"), {}, Reason.REJECTED),
    (HOME, 401, "no", {}, Reason.AUTH),
]


def refusal(url: str, status: int, body: Any, headers: dict[str, str] | None = None) -> Any:
    raw = body if isinstance(body, bytes) else rawjson.dumps(body)
    return OpenAI(service_of(url)).refusal(status, headers or {}, raw)


@pytest.mark.parametrize(("url", "status", "body", "headers", "reason"), SAID)
def test_refusal_means_what_the_service_means(
    url: str, status: int, body: Any, headers: dict[str, str], reason: Reason
) -> None:
    assert refusal(url, status, body, headers).reason is reason


def test_every_row_has_its_samples() -> None:
    assert {service_of(url).name for url, *_ in SAID} == {row.name for row in (*SERVICES, ANY)}


@pytest.mark.parametrize("row", SERVICES, ids=lambda row: row.name)
def test_what_a_row_says_differs_from_what_holds_everywhere(row: Any) -> None:
    url = f"https://{row.hosts[0]}/v1"
    assert service_of(url) is row
    assert service_of(f"https://x.{row.hosts[0]}/v1") is row
    assert service_of(f"https://x{row.hosts[0]}/v1") is ANY
    for code, reason in row.codes.items():
        assert refusal(url, 400, error("x", code=code)).reason is reason
        assert refusal(HOME, 400, error("x", code=code)).reason is not reason
    for status, reason in row.statuses.items():
        assert refusal(url, status, {}).reason is reason


def test_moment_to_come_back_is_read_out_of_words_and_fields() -> None:
    assert refusal(OPENAI, 429, error("Please try again in 5.289s")).after == 5.289
    assert refusal(GEMINI, 429, detailed("quota", RETRY)).after == 27


def test_refusal_that_comes_as_an_event_is_read() -> None:
    body = b"event: error\ndata: " + rawjson.dumps(error("m", code="Arrearage")) + b"\n\n"
    found = refusal(DASHSCOPE, 400, body)
    assert (found.reason, found.words) == (Reason.EMPTY_ACCOUNT, "m")


@pytest.mark.parametrize(
    ("url", "token", "headers"),
    [
        (OPENAI, "sk-1", {"authorization": "Bearer sk-1"}),
        (HOME, "", {}),
        (AZURE, "0a1b2c", {"api-key": "0a1b2c"}),
        (AZURE, "eyJ0.eyJ1.sig", {"authorization": "Bearer eyJ0.eyJ1.sig"}),
    ],
)
def test_key_goes_in_the_header_of_its_service(
    url: str, token: str, headers: dict[str, str]
) -> None:
    assert OpenAI(service_of(url)).headers(token) == headers


def test_deepseek_is_sent_the_reasoning_of_calls_of_tools() -> None:
    from gpt4batch.dialects.base import Turn
    from gpt4batch.lines.parse import Ask

    def sent(url: str, **message: Any) -> dict[str, Any]:
        answer = rawjson.dumps({"choices": [{"message": {"content": "x", **message}}]})
        turn = Turn((Ask(None, "a"), Ask(None, "b")), [answer], {"model": "m"})
        found: dict[str, Any] = OpenAI(service_of(url)).chat(turn).fields["messages"][1]
        return found

    calls = [{"id": "t"}]
    assert sent(DEEPSEEK, reasoning_content="hm") == {"role": "assistant", "content": "x"}
    with_calls = sent(DEEPSEEK, reasoning_content="hm", tool_calls=calls)
    assert with_calls["reasoning_content"] == "hm"
    assert "reasoning_content" not in sent(OPENAI, reasoning_content="hm", tool_calls=calls)


ADVISED = [
    (400, "This model only support stream mode, please enable the stream parameter", "--stream"),
    (400, "parameter.enable_thinking must be set to false for non-streaming calls", "--stream"),
    (404, "The model `x` does not exist", "-m, or the line's model"),
    (400, "Model Not Exist", "-m, or the line's model"),
    (404, "Not Found", "is -u the base"),
    (405, "Method Not Allowed", "is -u the base"),
    (413, "", "fewer or smaller"),
    (400, "temperature is too high", ""),
]


@pytest.mark.parametrize(("status", "words", "advice"), ADVISED)
def test_refusal_says_which_flag_helps(status: int, words: str, advice: str) -> None:
    found = refusal(HOME, status, error(words)).advice
    assert advice in found
    assert bool(advice) == bool(found)


@pytest.mark.parametrize("row", ADVICE)
def test_every_advice_is_given(row: Any) -> None:
    assert any(
        refusal(HOME, status, error(words)).advice == row.text for status, words, _ in ADVISED
    )


@pytest.mark.parametrize(
    ("headers", "remaining", "reset"),
    [
        # OpenAI and xAI; Azure; Groq
        ({"limit": "500", "remaining": "499", "reset": "120ms"}, 499, 0.12),
        ({"limit": "1000", "remaining": "900", "reset": "6"}, 900, 6),
        ({"limit": "14400", "remaining": "14370", "reset": "2m59.56s"}, 14370, 179.56),
        ({"limit": "-1", "remaining": "-1", "reset": "0"}, None, None),
    ],
)
def test_limits_are_read_in_the_units_of_their_service(
    headers: dict[str, str], remaining: float | None, reset: float | None
) -> None:
    named = {f"x-ratelimit-{part}-requests": value for part, value in headers.items()}
    found = OpenAI().limits(named, datetime(2026, 1, 1, tzinfo=UTC)).requests
    assert [window.remaining for window in found] == ([] if remaining is None else [remaining])
    assert [window.reset for window in found] == pytest.approx([] if reset is None else [reset])


def test_limits_of_openrouter_reset_at_a_moment_in_milliseconds() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    reset = str(int(now.timestamp() * 1000) + 30_000)
    named = {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "5", "x-ratelimit-reset": reset}
    (window,) = OpenAI().limits(named, now).requests
    assert window.reset == pytest.approx(30)


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ([], "the reply has no choices"),
        ([{"text": "", "finish_reason": "content_filter"}], "the service's filter ended"),
    ],
)
def test_legacy_completion_without_an_answer_is_none(choices: Any, reason: str) -> None:
    told = OpenAI().answer({"choices": choices}, path="/completions")
    assert isinstance(told, Refusal)
    assert reason in told.words


def test_legacy_completion_tells_why_it_ended() -> None:
    reply = {"choices": [{"text": "x", "finish_reason": "length"}]}
    told = OpenAI().answer(reply, path="/completions")
    assert isinstance(told, Answer)
    assert told.finish == "length"
