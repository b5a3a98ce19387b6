"""How the embedded service behaves: one record, without faults by default."""

from __future__ import annotations

from dataclasses import dataclass

from gpt4batch.errors import UsageError
from gpt4batch.mock.openai_errors import SHAPES
from gpt4batch.settings import MIB, check, flag
from gpt4batch.words import tr

FAULTS = "faults"
OPENAI = "openai"

CALL_FAULTS = (
    "rate_limit_rate",
    "error_rate",
    "reset_rate",
    "hang_rate",
    "cut_rate",
    "garbage_rate",
    "empty_rate",
    "content_error_rate",
)
"""The rates that share one draw for each call, in the order in which they divide 0 to 1."""

CHAT_FAULTS = (
    *CALL_FAULTS,
    "quota_rate",
    "length_rate",
    "content_filter_rate",
    "refusal_rate",
    "unfinished_rate",
    "stall_rate",
)
"""The same for the dialect openai, which can fail in more ways."""

ASSET_FAULTS = ("asset_error_rate", "asset_cut_rate")
"""The same for downloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MockSettings:
    """Address, pace, accounts, assets, dialects and faults of the embedded service.

    The accepted token and account have flags of their own, so that the environment's real
    credentials never become the mock's.
    """

    host: str = flag("127.0.0.1", "host", "Address to listen on.")
    port: int = flag(0, "port", "Port to listen on; 0 takes a free one.")
    seed: int = flag(
        0,
        "seed",
        "Seed of answers, ids and faults: the same calls get the same.",
    )
    latency: float = flag(0.0, "latency", "Seconds that a call takes.")
    jitter: float = flag(
        0.0,
        "jitter",
        "Share of the latency by which a call is faster or slower, 0 to 1.",
    )
    answer_size: int = flag(0, "answer-size", "Least bytes in an answer's text.")
    history: int = flag(
        100_000,
        "history",
        "Conversations, uploads and answers that are remembered at least, each.",
    )
    max_upload_size: float = flag(100.0, "max-upload-size", "Largest upload in MiB.")

    token: str = flag(
        "mock-token",
        "accept-token",
        "Access token that is accepted from the start; empty accepts any.",
    )
    email: str = flag(
        "mock@example.com",
        "accept-email",
        "Account that gets a token; empty accepts any.",
    )
    password: str = flag(
        "mock-password",
        "accept-password",
        "Its password; empty accepts any.",
    )
    token_ttl: float = flag(
        0.0,
        "token-ttl",
        "Seconds that issued tokens live, whatever was asked for; 0 is what was asked for.",
    )
    token_calls: int = flag(
        0,
        "token-calls",
        "Calls that a token is good for, then 401 until a new one is fetched; 0 is no limit.",
    )
    quota: int = flag(
        0,
        "quota",
        "Answers until the account is empty (402); 0 is no limit.",
    )
    quota_passes: float = flag(
        0.0,
        "quota-passes",
        "Seconds after which an empty account is filled again; 0 is never.",
    )

    asset_rate: float = flag(
        0.0,
        "asset-rate",
        "Share of answers that link to downloads, 0 to 1.",
    )
    asset_count: int = flag(1, "asset-count", "Downloads of such an answer.")
    asset_size: int = flag(4096, "asset-size", "Bytes of a download.")
    asset_expire_after: float = flag(
        0.0,
        "asset-expire-after",
        "Seconds that a download link lives; 0 is for ever.",
    )
    ranges: bool = flag(True, "ranges", "Let downloads be continued (Range).")

    models: str = flag(
        "",
        "models",
        "Models that there are, with commas between them; empty takes any.",
        panel=OPENAI,
    )
    key_header: str = flag(
        "any",
        "key-header",
        "Where the key is taken from: any, bearer (Authorization), api-key (as Azure).",
        choices=("any", "bearer", "api-key"),
        panel=OPENAI,
    )
    stream_only: bool = flag(
        False,
        "stream-only",
        "Refuse calls that do not ask for a stream.",
        panel=OPENAI,
    )
    keep_alive: float = flag(
        0.0,
        "keep-alive",
        "Seconds between blank lines, or comments of a stream, while a call waits; 0 is none.",
        panel=OPENAI,
    )
    usage: bool = flag(True, "usage", "Say what an answer cost, in tokens.", panel=OPENAI)
    reasoning_rate: float = flag(
        0.0,
        "reasoning-rate",
        "Share of answers with reasoning_content.",
        panel=OPENAI,
    )
    context_length: int = flag(
        0,
        "context-length",
        "Tokens that a question may have; 0 is no limit.",
        panel=OPENAI,
    )
    error_shape: str = flag(
        "nested",
        "error-shape",
        "Shape of errors: nested (OpenAI), number and flat (vLLM), list (Gemini), text.",
        choices=SHAPES,
        panel=OPENAI,
    )
    limit_headers: str = flag(
        "durations",
        "limit-headers",
        "x-ratelimit headers: durations (OpenAI), seconds (Azure), epoch (OpenRouter),"
        " unknown (-1), none.",
        choices=("durations", "seconds", "epoch", "unknown", "none"),
        panel=OPENAI,
    )
    quota_code: str = flag(
        "insufficient_quota",
        "quota-code",
        "Code of the error when the account is empty.",
        panel=OPENAI,
    )
    quota_status: int = flag(429, "quota-status", "Its status, 400 to 599.", panel=OPENAI)

    limit_tpm: float = flag(
        0.0,
        "limit-tpm",
        "Tokens a minute that are let through, the rest get 429; 0 is no limit. Only openai.",
        panel=FAULTS,
    )
    limit_qps: float = flag(
        0.0,
        "limit-qps",
        "Calls a second that are let through, the rest get 429; 0 is no limit.",
        panel=FAULTS,
    )
    retry_after: float = flag(
        1.0,
        "retry-after",
        "Seconds to name in the Retry-After of a 429; 0 leaves it out.",
        panel=FAULTS,
    )
    retry_after_date: bool = flag(
        False,
        "retry-after-date",
        "Send Retry-After as a date.",
        panel=FAULTS,
    )
    rate_limit_rate: float = flag(
        0.0, "rate-limit-rate", "Share of calls that get 429.", panel=FAULTS
    )
    error_rate: float = flag(0.0, "error-rate", "Share of calls that get 500.", panel=FAULTS)
    reset_rate: float = flag(
        0.0,
        "reset-rate",
        "Share of calls whose connection is reset.",
        panel=FAULTS,
    )
    hang_rate: float = flag(
        0.0,
        "hang-rate",
        "Share of calls that are never answered.",
        panel=FAULTS,
    )
    cut_rate: float = flag(
        0.0,
        "cut-rate",
        "Share of replies that break off half-way.",
        panel=FAULTS,
    )
    garbage_rate: float = flag(
        0.0,
        "garbage-rate",
        "Share of replies that are no JSON.",
        panel=FAULTS,
    )
    empty_rate: float = flag(
        0.0,
        "empty-rate",
        "Share of replies without contents.",
        panel=FAULTS,
    )
    content_error_rate: float = flag(
        0.0,
        "content-error-rate",
        "Share of replies that carry an error in their contents.",
        panel=FAULTS,
    )
    quota_rate: float = flag(
        0.0,
        "quota-rate",
        "Share of calls that are told of an empty account, which is filled the next time.",
        panel=FAULTS,
    )
    length_rate: float = flag(
        0.0,
        "length-rate",
        "Share of answers that end early (finish_reason length).",
        panel=FAULTS,
    )
    content_filter_rate: float = flag(
        0.0,
        "content-filter-rate",
        "Share of replies that were filtered (finish_reason content_filter).",
        panel=FAULTS,
    )
    refusal_rate: float = flag(
        0.0,
        "refusal-rate",
        "Share of answers that are a refusal.",
        panel=FAULTS,
    )
    unfinished_rate: float = flag(
        0.0,
        "unfinished-rate",
        "Share of replies without a finish_reason; their streams just stop.",
        panel=FAULTS,
    )
    stall_rate: float = flag(
        0.0,
        "stall-rate",
        "Share of replies that stop half-way, with the connection left open.",
        panel=FAULTS,
    )
    asset_error_rate: float = flag(
        0.0,
        "asset-error-rate",
        "Share of downloads that get 500.",
        panel=FAULTS,
    )
    asset_cut_rate: float = flag(
        0.0,
        "asset-cut-rate",
        "Share of downloads that break off half-way.",
        panel=FAULTS,
    )

    def __post_init__(self) -> None:
        """Refuse values that no service can work with."""
        check(self)
        if self.port > 65535:
            raise UsageError(tr("--port {port}: ports end at 65535", port=self.port))
        if not 400 <= self.quota_status <= 599:
            raise UsageError(
                tr(
                    "--quota-status {quota_status}: a refusal is 400 to 599",
                    quota_status=self.quota_status,
                )
            )
        for name in ("jitter", "asset_rate", "reasoning_rate", *CHAT_FAULTS, *ASSET_FAULTS):
            if getattr(self, name) > 1:
                raise UsageError(
                    tr(
                        "--{name} {value:g}: a share is 0 to 1",
                        name=name.replace("_", "-"),
                        value=getattr(self, name),
                    )
                )
        for names in (CHAT_FAULTS, ASSET_FAULTS):
            if sum(getattr(self, name) for name in names) > 1 + 1e-9:
                listed = ", ".join("--" + name.replace("_", "-") for name in names)
                raise UsageError(tr("{listed}: together more than 1", listed=listed))

    @property
    def max_upload_bytes(self) -> int:
        """Return the largest upload in bytes."""
        return int(self.max_upload_size * MIB)
