"""How the embedded service behaves: one record, without faults by default."""

from __future__ import annotations

from dataclasses import dataclass

from gpt4batch.errors import UsageError
from gpt4batch.mock.openai_errors import SHAPES
from gpt4batch.settings import MIB, check, flag

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

    host: str = flag("127.0.0.1", "host", "Address to listen on.", "监听地址.")
    port: int = flag(
        0, "port", "Port to listen on; 0 takes a free one.", "监听端口,0为任意空闲端口."
    )
    seed: int = flag(
        0,
        "seed",
        "Seed of answers, ids and faults: the same calls get the same.",
        "答案、标识和故障的随机种子: 相同调用得到相同结果.",
    )
    latency: float = flag(0.0, "latency", "Seconds that a call takes.", "每次调用耗时(秒).")
    jitter: float = flag(
        0.0,
        "jitter",
        "Share of the latency by which a call is faster or slower, 0 to 1.",
        "耗时的抖动比例,0到1.",
    )
    answer_size: int = flag(
        0, "answer-size", "Least bytes in an answer's text.", "答案文本的最小字节数."
    )
    history: int = flag(
        100_000,
        "history",
        "Conversations, uploads and answers that are remembered at least, each.",
        "至少记住的对话、上传和答案的数量.",
    )
    max_upload_size: float = flag(
        100.0, "max-upload-size", "Largest upload in MiB.", "上传文件的最大MiB."
    )

    token: str = flag(
        "mock-token",
        "accept-token",
        "Access token that is accepted from the start; empty accepts any.",
        "可接受的访问令牌,留空则接受任意令牌.",
    )
    email: str = flag(
        "mock@example.com",
        "accept-email",
        "Account that gets a token; empty accepts any.",
        "可获取令牌的账号,留空则接受任意账号.",
    )
    password: str = flag(
        "mock-password",
        "accept-password",
        "Its password; empty accepts any.",
        "账号密码,留空则接受任意密码.",
    )
    token_ttl: float = flag(
        0.0,
        "token-ttl",
        "Seconds that issued tokens live, whatever was asked for; 0 is what was asked for.",
        "颁发令牌的有效秒数,0为按请求.",
    )
    token_calls: int = flag(
        0,
        "token-calls",
        "Calls that a token is good for, then 401 until a new one is fetched; 0 is no limit.",
        "每个令牌可用的调用次数, 用尽后返回 401, 0为不限.",
    )
    quota: int = flag(
        0,
        "quota",
        "Answers until the account is empty (402); 0 is no limit.",
        "余额可支付的对话次数, 用尽后返回402, 0为不限.",
    )
    quota_passes: float = flag(
        0.0,
        "quota-passes",
        "Seconds after which an empty account is filled again; 0 is never.",
        "余额用尽后多少秒恢复, 0为不恢复.",
    )

    asset_rate: float = flag(
        0.0,
        "asset-rate",
        "Share of answers that link to downloads, 0 to 1.",
        "带下载文件的答案比例,0到1.",
    )
    asset_count: int = flag(
        1, "asset-count", "Downloads of such an answer.", "每个答案的下载文件数."
    )
    asset_size: int = flag(4096, "asset-size", "Bytes of a download.", "下载文件的字节数.")
    asset_expire_after: float = flag(
        0.0,
        "asset-expire-after",
        "Seconds that a download link lives; 0 is for ever.",
        "下载链接的有效秒数,0为永久.",
    )
    ranges: bool = flag(
        True, "ranges", "Let downloads be continued (Range).", "下载是否支持断点续传(Range)."
    )

    models: str = flag(
        "",
        "models",
        "Models that there are, with commas between them; empty takes any.",
        "可用的模型, 以逗号分隔, 留空则接受任意模型.",
        panel=OPENAI,
    )
    key_header: str = flag(
        "any",
        "key-header",
        "Where the key is taken from: any, bearer (Authorization), api-key (as Azure).",
        "从何处读取密钥: any 两者皆可, bearer (Authorization), api-key (同Azure).",
        choices=("any", "bearer", "api-key"),
        panel=OPENAI,
    )
    stream_only: bool = flag(
        False,
        "stream-only",
        "Refuse calls that do not ask for a stream.",
        "拒绝非流式调用.",
        panel=OPENAI,
    )
    keep_alive: float = flag(
        0.0,
        "keep-alive",
        "Seconds between blank lines, or comments of a stream, while a call waits; 0 is none.",
        "等待期间发送空行(流式为注释)的间隔秒数, 0为不发送.",
        panel=OPENAI,
    )
    usage: bool = flag(
        True, "usage", "Say what an answer cost, in tokens.", "应答中报告token用量.", panel=OPENAI
    )
    reasoning_rate: float = flag(
        0.0,
        "reasoning-rate",
        "Share of answers with reasoning_content.",
        "带reasoning_content的答案比例.",
        panel=OPENAI,
    )
    context_length: int = flag(
        0,
        "context-length",
        "Tokens that a question may have; 0 is no limit.",
        "问题的token上限, 0为不限.",
        panel=OPENAI,
    )
    error_shape: str = flag(
        "nested",
        "error-shape",
        "Shape of errors: nested (OpenAI), number and flat (vLLM), list (Gemini), text.",
        "错误的格式: nested (OpenAI), number 和 flat (vLLM), list (Gemini), text 纯文本.",
        choices=SHAPES,
        panel=OPENAI,
    )
    limit_headers: str = flag(
        "durations",
        "limit-headers",
        "x-ratelimit headers: durations (OpenAI), seconds (Azure), epoch (OpenRouter),"
        " unknown (-1), none.",
        "x-ratelimit 响应头: durations (OpenAI), seconds (Azure), epoch (OpenRouter),"
        " unknown (值为-1), none 不发送.",
        choices=("durations", "seconds", "epoch", "unknown", "none"),
        panel=OPENAI,
    )
    quota_code: str = flag(
        "insufficient_quota",
        "quota-code",
        "Code of the error when the account is empty.",
        "余额用尽时的错误代码.",
        panel=OPENAI,
    )
    quota_status: int = flag(
        429, "quota-status", "Its status, 400 to 599.", "其HTTP状态码, 400到599.", panel=OPENAI
    )

    limit_tpm: float = flag(
        0.0,
        "limit-tpm",
        "Tokens a minute that are let through, the rest get 429; 0 is no limit. Only openai.",
        "每分钟允许的token数, 超出返回429, 0为不限. 仅openai.",
        panel=FAULTS,
    )
    limit_qps: float = flag(
        0.0,
        "limit-qps",
        "Calls a second that are let through, the rest get 429; 0 is no limit.",
        "每秒允许的调用次数, 超出返回429, 0为不限.",
        panel=FAULTS,
    )
    retry_after: float = flag(
        1.0,
        "retry-after",
        "Seconds to name in the Retry-After of a 429; 0 leaves it out.",
        "429响应中Retry-After的秒数, 0为不带.",
        panel=FAULTS,
    )
    retry_after_date: bool = flag(
        False,
        "retry-after-date",
        "Send Retry-After as a date.",
        "以日期形式发送Retry-After.",
        panel=FAULTS,
    )
    rate_limit_rate: float = flag(
        0.0, "rate-limit-rate", "Share of calls that get 429.", "返回429的调用比例.", panel=FAULTS
    )
    error_rate: float = flag(
        0.0, "error-rate", "Share of calls that get 500.", "返回500的调用比例.", panel=FAULTS
    )
    reset_rate: float = flag(
        0.0,
        "reset-rate",
        "Share of calls whose connection is reset.",
        "连接被重置的调用比例.",
        panel=FAULTS,
    )
    hang_rate: float = flag(
        0.0,
        "hang-rate",
        "Share of calls that are never answered.",
        "永不应答的调用比例.",
        panel=FAULTS,
    )
    cut_rate: float = flag(
        0.0,
        "cut-rate",
        "Share of replies that break off half-way.",
        "应答中途断开的调用比例.",
        panel=FAULTS,
    )
    garbage_rate: float = flag(
        0.0,
        "garbage-rate",
        "Share of replies that are no JSON.",
        "应答不是JSON的调用比例.",
        panel=FAULTS,
    )
    empty_rate: float = flag(
        0.0,
        "empty-rate",
        "Share of replies without contents.",
        "应答没有contents的调用比例.",
        panel=FAULTS,
    )
    content_error_rate: float = flag(
        0.0,
        "content-error-rate",
        "Share of replies that carry an error in their contents.",
        "应答contents中带错误的调用比例.",
        panel=FAULTS,
    )
    quota_rate: float = flag(
        0.0,
        "quota-rate",
        "Share of calls that are told of an empty account, which is filled the next time.",
        "返回余额不足(下次恢复)的调用比例.",
        panel=FAULTS,
    )
    length_rate: float = flag(
        0.0,
        "length-rate",
        "Share of answers that end early (finish_reason length).",
        "提前结束(finish_reason length)的答案比例.",
        panel=FAULTS,
    )
    content_filter_rate: float = flag(
        0.0,
        "content-filter-rate",
        "Share of replies that were filtered (finish_reason content_filter).",
        "被过滤(finish_reason content_filter)的应答比例.",
        panel=FAULTS,
    )
    refusal_rate: float = flag(
        0.0,
        "refusal-rate",
        "Share of answers that are a refusal.",
        "拒绝回答(refusal)的答案比例.",
        panel=FAULTS,
    )
    unfinished_rate: float = flag(
        0.0,
        "unfinished-rate",
        "Share of replies without a finish_reason; their streams just stop.",
        "没有finish_reason的应答比例, 流式则直接中止.",
        panel=FAULTS,
    )
    stall_rate: float = flag(
        0.0,
        "stall-rate",
        "Share of replies that stop half-way, with the connection left open.",
        "中途停住但连接不断开的应答比例.",
        panel=FAULTS,
    )
    asset_error_rate: float = flag(
        0.0,
        "asset-error-rate",
        "Share of downloads that get 500.",
        "返回500的下载比例.",
        panel=FAULTS,
    )
    asset_cut_rate: float = flag(
        0.0,
        "asset-cut-rate",
        "Share of downloads that break off half-way.",
        "中途断开的下载比例.",
        panel=FAULTS,
    )

    def __post_init__(self) -> None:
        """Refuse values that no service can work with."""
        check(self)
        if self.port > 65535:
            raise UsageError(f"--port {self.port}: ports end at 65535")
        if not 400 <= self.quota_status <= 599:
            raise UsageError(f"--quota-status {self.quota_status}: a refusal is 400 to 599")
        for name in ("jitter", "asset_rate", "reasoning_rate", *CHAT_FAULTS, *ASSET_FAULTS):
            if getattr(self, name) > 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name):g}: a share is 0 to 1"
                )
        for names in (CHAT_FAULTS, ASSET_FAULTS):
            if sum(getattr(self, name) for name in names) > 1 + 1e-9:
                listed = ", ".join("--" + name.replace("_", "-") for name in names)
                raise UsageError(f"{listed}: together more than 1")

    @property
    def max_upload_bytes(self) -> int:
        """Return the largest upload in bytes."""
        return int(self.max_upload_size * MIB)
