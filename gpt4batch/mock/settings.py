"""How the embedded service behaves: one record, without faults by default."""

from __future__ import annotations

from dataclasses import dataclass

from gpt4batch.errors import UsageError
from gpt4batch.settings import MIB, check, flag

FAULTS = "faults"

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

ASSET_FAULTS = ("asset_error_rate", "asset_cut_rate")
"""The same for downloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MockSettings:
    """Address, pace, accounts, assets and faults of the embedded service.

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
        for name in ("jitter", "asset_rate", *CALL_FAULTS, *ASSET_FAULTS):
            if getattr(self, name) > 1:
                raise UsageError(
                    f"--{name.replace('_', '-')} {getattr(self, name):g}: a share is 0 to 1"
                )
        for names in (CALL_FAULTS, ASSET_FAULTS):
            if sum(getattr(self, name) for name in names) > 1 + 1e-9:
                listed = ", ".join("--" + name.replace("_", "-") for name in names)
                raise UsageError(f"{listed}: together more than 1")

    @property
    def max_upload_bytes(self) -> int:
        """Return the largest upload in bytes."""
        return int(self.max_upload_size * MIB)
