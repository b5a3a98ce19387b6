"""What a command was asked to do: one frozen record, each field with its flag and its help.

A field's default, flag and help stand together here and nowhere else, in English: the command
line, the environment (`GPT4BATCH_<LONG_NAME>`), `--help` and the reference are made from them.
Times are in seconds, sizes in bytes and rates in calls per second unless a field says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from gpt4batch.errors import UsageError
from gpt4batch.price import Price
from gpt4batch.words import tr

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = "0.1.0"
KIB = 1024
MIB = 1024 * 1024
DEFAULT_URL = "https://beta.gpt4api.plus/standard/all-tools"
DEFAULT_UPLOAD_URL = "https://beta.gpt4api.plus/standard/uploaded"
DEFAULT_TOKEN_URL = "https://beta.gpt4api.shop/console/access_token"
DEFAULT_TTL = 86400
DEFAULT_MODEL = "gpt-4-gizmo"
FAILING = ("empty", "content_filter", "length")
DEFAULT_FAIL_ON = "empty,content_filter"
LAST_PORT = 65535
LARGEST = 1e9
"""The greatest rate and time: so many seconds are 31 years, and no clock here counts further."""
SMALLEST = 1e-9
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
OUR_HEADERS = frozenset(
    ("connection", "content-length", "content-type", "host", "transfer-encoding", "upgrade")
)


@dataclass(frozen=True, slots=True)
class Flag:
    """How a setting is written on the command line and explained."""

    long: str
    short: str
    help: str
    kind: type
    choices: tuple[str, ...] = ()
    panel: str = ""
    metavar: str = ""
    common: bool = False
    argument: bool = False
    secret: bool = False
    env: str = ""


def flag(  # noqa: PLR0913 - one argument a property
    default: Any,
    names: str,
    text: str,
    *,
    choices: tuple[str, ...] = (),
    panel: str = "",
    metavar: str = "",
    common: bool = False,
    argument: bool = False,
    secret: bool = False,
    env: str = "",
) -> Any:
    """Declare a field that is a flag; `names` is `long` or `long/s`.

    Those that most people need are `common`: `--help` shows them, and `--help-all` all of them.
    Numbers whose default is a whole one are still taken as fractions where the default is a float.
    """
    long, _, short = names.partition("/")
    spec = Flag(
        long, short, text, type(default), choices, panel, metavar, common, argument, secret, env
    )
    return field(default=default, metadata={"flag": spec})


def flags_of(settings: type) -> Iterator[tuple[str, Any, Flag]]:
    """Yield the name, default and flag of every setting that has a flag."""
    for item in fields(settings):
        if "flag" in item.metadata:
            yield item.name, item.default, item.metadata["flag"]


FILES, PACE, SERVICE, DOWNLOADS = "files", "pace", "service", "fetching"
SNAPSHOTS, QUEUE, LOGGING = "snapshots", "queue", "logging"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One batch run: the original's flags with its names and defaults, and ours, by their use."""

    input: str = flag(
        "example.jsonl",
        "in/i",
        "Input file; - is standard input.",
        panel=FILES,
        metavar="FILE",
        common=True,
    )
    out: str = flag(
        "out.jsonl",
        "out/o",
        "Output file; - is standard output.",
        panel=FILES,
        metavar="FILE",
        common=True,
    )
    fix: bool = flag(
        False,
        "fix/f",
        "Resume: run only what has not succeeded.",
        panel=FILES,
        common=True,
    )
    mock: bool = flag(
        False,
        "mock",
        "Rehearse against the embedded service; needs no token and costs nothing.",
        panel=FILES,
        common=True,
    )
    limit: int = flag(
        0,
        "limit",
        "Run at most this many lines; 0 is all.",
        panel=FILES,
        metavar="N",
        common=True,
    )
    only: str = flag(
        "",
        "only",
        "Run only the lines with these ids, separated by commas, of those that are not done.",
        panel=FILES,
        metavar="IDS",
    )
    redo: bool = flag(
        False,
        "redo",
        "Ask the lines of --only anew although they are done; needs -f. What they had is kept.",
        panel=FILES,
    )
    skip_bad_lines: bool = flag(
        False,
        "skip-bad-lines",
        "Run the good lines of an input that has bad ones.",
        panel=FILES,
    )
    skip_bad_results: bool = flag(
        False,
        "skip-bad-results",
        "With -f: take what can be read of a damaged output and keep the rest aside.",
        panel=FILES,
    )
    error_file: str = flag(
        "",
        "error-file",
        "For an OpenAI batch file: put the rows of requests that failed here, not in the output.",
        panel=FILES,
        metavar="FILE",
    )
    summary: str = flag(
        "",
        "summary",
        "Write the run's totals to this file as JSON.",
        panel=FILES,
        metavar="FILE",
    )
    fsync: str = flag(
        "interval",
        "fsync",
        "When answers survive a power cut: each at once, within a second, or as it comes.",
        choices=("always", "interval", "never"),
        panel=FILES,
    )

    qps: float = flag(
        1.0,
        "qps/q",
        "Calls a second, over all lines; 0 is no limit.",
        panel=PACE,
        metavar="N",
        common=True,
    )
    goroutine: int = flag(
        60,
        "goroutine/g",
        "Lines that run at the same time.",
        panel=PACE,
        metavar="N",
        common=True,
    )
    retries: int = flag(
        5,
        "retries",
        "Retries of a call after a temporary failure.",
        panel=PACE,
        metavar="N",
        common=True,
    )
    timeout: float = flag(
        480.0,
        "timeout",
        "Seconds that the answer to one call may take.",
        panel=PACE,
        metavar="SECONDS",
        common=True,
    )
    max_calls: int = flag(
        0,
        "max-calls",
        "Budget: stop after this many chat calls, retries counted; 0 is no limit.",
        panel=PACE,
        metavar="N",
        common=True,
    )
    max_tokens: int = flag(
        0,
        "max-tokens",
        "Budget of this run: stop when its calls have taken so many tokens; 0 is no limit.",
        panel=PACE,
        metavar="N",
    )
    max_cost: float = flag(
        0.0,
        "max-cost",
        "Budget of this run in money, by --price; 0 is no limit.",
        panel=PACE,
        metavar="AMOUNT",
    )
    price: str = flag(
        "",
        "price",
        "What a million tokens cost: in=0.15,cached=0.075,out=0.60",
        panel=PACE,
        metavar="PRICES",
    )
    tpm: int = flag(
        0,
        "tpm",
        "Tokens a minute, over all lines; 0 is no limit. Needs a service that tells usage.",
        panel=PACE,
        metavar="N",
    )
    ramp: float = flag(
        0.0,
        "ramp",
        "Seconds in which the pace rises from a tenth of -q to all of it; 0 begins at once.",
        panel=PACE,
        metavar="SECONDS",
    )
    max_consecutive_failures: int = flag(
        20,
        "max-consecutive-failures",
        "Stop when this many lines in a row fail; 0 is never.",
        panel=PACE,
        metavar="N",
    )
    patience: float = flag(
        900.0,
        "patience",
        "Seconds to find out whether an account is empty or a limit passes, before the run stops.",
        panel=PACE,
        metavar="SECONDS",
    )
    grace: float = flag(
        20.0,
        "grace",
        "Seconds that lines in flight get to finish after Ctrl-C.",
        panel=PACE,
        metavar="SECONDS",
    )

    url: str = flag(
        DEFAULT_URL,
        "url/u",
        "Address for chats: .../all-tools or .../gizmos; with --api openai the service's base"
        " (.../v1), or the address of chat completions.",
        panel=SERVICE,
        metavar="URL",
        common=True,
    )
    upload_url: str = flag(
        DEFAULT_UPLOAD_URL,
        "upload_url/l",
        "Address for uploads. Default: like -u, with /uploaded at the end.",
        panel=SERVICE,
        metavar="URL",
    )
    api: str = flag(
        "",
        "api",
        "What the service speaks. Left empty it follows from -u.",
        choices=("gpt4api", "openai"),
        panel=SERVICE,
        common=True,
    )
    model: str = flag(
        DEFAULT_MODEL,
        "model/m",
        "Model to ask.",
        panel=SERVICE,
        metavar="NAME",
        common=True,
    )
    gizmo_id: str = flag(
        "",
        "gizmo-id/z",
        "GPT (gizmo) to ask; without -u the calls go to /gizmos.",
        panel=SERVICE,
        metavar="ID",
    )
    history_and_training_disabled: bool = flag(
        True,
        "history_and_training_disabled/s",
        "Keep the conversations out of the account's history.",
        panel=SERVICE,
    )
    token: str = flag(
        "",
        "token",
        "Access token or API key, instead of the stored one; better by GPT4BATCH_TOKEN, or with"
        " --api openai by OPENAI_API_KEY.",
        panel=SERVICE,
        metavar="TOKEN",
        secret=True,
    )
    token_file: str = flag(
        "",
        "token-file",
        "File that holds the access token.",
        panel=SERVICE,
        metavar="FILE",
        common=True,
    )
    header: tuple[str, ...] = flag(
        (),
        "header",
        "A header that every call has, 'Name: value'; may be given several times, and by"
        " GPT4BATCH_HEADER a line each. Values are secrets.",
        panel=SERVICE,
        metavar="HEADER",
        secret=True,
        env="GPT4BATCH_HEADER",
    )
    proxy: str = flag(
        "",
        "proxy",
        "Proxy for all calls but those to this machine, besides HTTPS_PROXY and the like.",
        panel=SERVICE,
        metavar="URL",
    )
    stream: bool = flag(
        False,
        "stream",
        "With --api openai: ask for streams; each becomes one ordinary answer.",
        panel=SERVICE,
    )
    idle_timeout: float = flag(
        120.0,
        "idle-timeout",
        "With --stream: seconds in which nothing but keep-alives may come.",
        panel=SERVICE,
        metavar="SECONDS",
    )
    fail_on: str = flag(
        DEFAULT_FAIL_ON,
        "fail-on",
        "With --api openai: what makes an answer fail its line, of empty, content_filter, length.",
        panel=SERVICE,
        metavar="WORDS",
    )

    download_dir: str = flag(
        "",
        "download-dir/d",
        "Folder for downloads. Left empty: the input file's folder; with --mock OUT.rehearsal.",
        panel=DOWNLOADS,
        metavar="DIR",
        common=True,
    )
    enable_download: bool = flag(
        True,
        "enable-download/e",
        "Download the files that answers link to.",
        panel=DOWNLOADS,
        common=True,
    )
    download_prefix: str = flag(
        "GPT4API",
        "download-prefix/p",
        "Prefix of downloaded files' names.",
        panel=DOWNLOADS,
        metavar="TEXT",
    )
    max_download_size: int = flag(
        0,
        "max-download-size",
        "Largest download in MiB; 0 is no limit.",
        panel=DOWNLOADS,
        metavar="MIB",
    )
    download_min_speed: int = flag(
        1024,
        "download-min-speed",
        "Give up a download slower than this many bytes a second over a minute; 0 is never.",
        panel=DOWNLOADS,
        metavar="BYTES",
    )
    allow_private_downloads: bool = flag(
        False,
        "allow-private-downloads",
        "Download from private and loopback addresses too.",
        panel=DOWNLOADS,
    )

    rdb: bool = flag(
        True,
        "rdb/r",
        "Write a snapshot of the results every -v minutes.",
        panel=SNAPSHOTS,
    )
    rdb_interval: float = flag(
        60.0,
        "rdb_interval/v",
        "Minutes between snapshots.",
        panel=SNAPSHOTS,
        metavar="MINUTES",
    )

    enable_nsq: bool = flag(
        False,
        "enable_nsq/n",
        "Publish each answer to NSQ as well.",
        panel=QUEUE,
    )
    nsqd_tcp_address: str = flag(
        "127.0.0.1:4150",
        "nsqd-tcp-address",
        "nsqd for -n; several are separated by commas.",
        panel=QUEUE,
        metavar="ADDRESS",
    )
    nsq_topic: str = flag(
        "gpt4api",
        "nsq-topic",
        "NSQ topic for -n.",
        panel=QUEUE,
        metavar="TOPIC",
    )
    nsq_tls: bool = flag(
        False,
        "nsq-tls",
        "Speak to nsqd over TLS only.",
        panel=QUEUE,
    )
    nsq_ca: str = flag(
        "",
        "nsq-ca",
        "CA file for nsqd's certificate. Left empty: SSL_CERT_FILE, else the usual ones.",
        panel=QUEUE,
        metavar="FILE",
    )
    nsq_auth_secret: str = flag(
        "",
        "nsq-auth-secret",
        "Secret for an nsqd that wants one; better by GPT4BATCH_NSQ_AUTH_SECRET.",
        panel=QUEUE,
        metavar="SECRET",
        secret=True,
    )
    fleet: bool = flag(
        False,
        "fleet",
        "Let workers (gpt4batch worksvc) run the lines, by way of nsqd.",
        panel=QUEUE,
    )
    lookupd_http_address: str = flag(
        "",
        "lookupd-http-address",
        "nsqlookupd that knows of more nsqds; several are separated by commas.",
        panel=QUEUE,
        metavar="ADDRESS",
    )
    inline_files: int = flag(
        0,
        "inline-files",
        "Send the attachments of a line along with it, up to this many KiB; 0 is never.",
        panel=QUEUE,
        metavar="KIB",
    )
    lease: float = flag(
        30.0,
        "lease",
        "Seconds of silence after which a worker's lines are given to others.",
        panel=QUEUE,
        metavar="SECONDS",
    )

    quiet: bool = flag(
        False,
        "quiet",
        "Show no progress and no summary.",
        panel=LOGGING,
        common=True,
    )
    notify: bool = flag(
        False,
        "notify",
        "Where there is a terminal: ring its bell and notify when the run ends.",
        panel=LOGGING,
        common=True,
    )
    progress_interval: float = flag(
        10.0,
        "progress-interval",
        "Seconds between progress lines where there is no terminal.",
        panel=LOGGING,
        metavar="SECONDS",
    )
    log_level: str = flag(
        "info",
        "log-level",
        "Lowest level to log.",
        choices=("debug", "info", "warning", "error"),
        panel=LOGGING,
    )
    log_format: str = flag(
        "text",
        "log-format",
        "Log as text or as JSON lines.",
        choices=("text", "json"),
        panel=LOGGING,
    )
    log_file: str = flag(
        "",
        "log-file",
        "Log to this file instead of standard error.",
        panel=LOGGING,
        metavar="FILE",
    )
    metrics_port: int = flag(
        0,
        "metrics-port",
        "Serve the run's counters to Prometheus on this port; 0 is off.",
        panel=LOGGING,
        metavar="PORT",
    )
    metrics_address: str = flag(
        "127.0.0.1",
        "metrics-address",
        "Address for --metrics-port; 0.0.0.0 lets other machines read them.",
        panel=LOGGING,
        metavar="ADDRESS",
    )

    origin: str = ""
    """Scheme and host that replace those of every address: where `--mock` listens."""

    def __post_init__(self) -> None:
        """Refuse values that no run can work with."""
        check(self)
        if self.goroutine < 1:
            raise UsageError(
                tr("-g {goroutine}: at least one line must run at a time", goroutine=self.goroutine)
            )
        if self.rdb and self.rdb_interval <= 0:
            raise UsageError(
                tr(
                    "-v {rdb_interval:g}: minutes between snapshots, more than 0",
                    rdb_interval=self.rdb_interval,
                )
            )
        if self.fleet and self.mock:
            raise UsageError(
                tr("--fleet --mock: the workers make the calls; start mocksvc and give them its -u")
            )
        if self.timeout <= 0:
            raise UsageError(
                tr("--timeout {timeout:g}: must be more than 0 seconds", timeout=self.timeout)
            )
        Price.read(self.price)
        if self.metrics_port > LAST_PORT:
            raise UsageError(
                tr(
                    "--metrics-port {metrics_port}: ports end at {last_port}",
                    metrics_port=self.metrics_port,
                    last_port=LAST_PORT,
                )
            )
        check_dialect(self)
        tidy_addresses(self)

    @property
    def failing(self) -> tuple[str, ...]:
        """Return what makes an answer fail its line."""
        return words_of(self.fail_on)

    @property
    def priced(self) -> Price | None:
        """Return what tokens cost, where that is known."""
        return Price.read(self.price)


def same(name: str) -> Any:
    """Declare a field that is the same flag as one of a batch run."""
    item = Settings.__dataclass_fields__[name]
    return field(
        default=item.default, metadata={"flag": replace(item.metadata["flag"], common=False)}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """A worker of a fleet: what it may use of this machine and account."""

    goroutine: int = same("goroutine")
    qps: float = flag(
        0.0,
        "qps/q",
        "Calls a second of this worker at most, whatever the fleet's pace; 0 is no limit.",
        panel=PACE,
        metavar="N",
    )
    download_dir: str = flag(
        ".", "download-dir/d", "Folder for downloads.", panel=DOWNLOADS, metavar="DIR"
    )
    download_prefix: str = same("download_prefix")
    upload_url: str = same("upload_url")
    url: str = same("url")
    api: str = same("api")
    stream: bool = same("stream")
    idle_timeout: float = same("idle_timeout")
    fail_on: str = same("fail_on")

    name: str = flag(
        "",
        "name",
        "Name of this worker. Left empty: the host's.",
        panel=QUEUE,
        metavar="NAME",
    )
    files_root: str = flag(
        ".",
        "files-root",
        "Folder that the paths of attachments start from.",
        panel=QUEUE,
        metavar="DIR",
    )
    spool_dir: str = flag(
        ".",
        "spool-dir",
        "Folder for results that nsqd has not taken yet.",
        panel=QUEUE,
        metavar="DIR",
    )
    nsqd_tcp_address: str = same("nsqd_tcp_address")
    lookupd_http_address: str = same("lookupd_http_address")
    nsq_topic: str = same("nsq_topic")
    nsq_tls: bool = same("nsq_tls")
    nsq_ca: str = same("nsq_ca")
    nsq_auth_secret: str = same("nsq_auth_secret")
    grace: float = same("grace")

    token: str = same("token")
    token_file: str = same("token_file")
    header: tuple[str, ...] = same("header")
    proxy: str = same("proxy")
    allow_private_downloads: bool = same("allow_private_downloads")
    max_download_size: int = same("max_download_size")
    download_min_speed: int = same("download_min_speed")
    retries: int = same("retries")
    patience: float = same("patience")

    log_level: str = same("log_level")
    log_format: str = same("log_format")
    log_file: str = same("log_file")

    origin: str = ""

    def __post_init__(self) -> None:
        """Refuse values that no worker can work with."""
        check(self)
        if self.name.strip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"):
            raise UsageError(
                tr("--name {name!r}: of the characters A-Z a-z 0-9 . _ - only", name=self.name)
            )
        if self.goroutine < 1:
            raise UsageError(
                tr("-g {goroutine}: at least one line must run at a time", goroutine=self.goroutine)
            )
        check_dialect(self)
        tidy_addresses(self)

    @property
    def failing(self) -> tuple[str, ...]:
        """Return what makes an answer fail its line."""
        return words_of(self.fail_on)


def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a list with commas."""
    return tuple(word for part in text.split(",") if (word := part.strip()))


def check_dialect(settings: Settings | WorkerSettings) -> None:
    """Refuse what no dialect can work with: words of `--fail-on`, headers, no time at all."""
    for word in settings.failing:
        if word not in FAILING:
            raise UsageError(
                tr("--fail-on {word!r}: choose of {words}", word=word, words=", ".join(FAILING))
            )
    if settings.idle_timeout <= 0:
        raise UsageError(
            tr(
                "--idle-timeout {idle_timeout:g}: must be more than 0 seconds",
                idle_timeout=settings.idle_timeout,
            )
        )
    for text in settings.header:
        header_of(text)


def header_of(text: str) -> tuple[str, str]:
    """Return name and value of a header.

    Raises:
        UsageError: It is none, or one that is not the user's to set; its value is not shown.
    """
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not value or not HEADER_NAME.fullmatch(name):
        raise UsageError(tr("--header: each is written 'Name: value', such as 'api-key: …'"))
    if name.lower() in OUR_HEADERS:
        raise UsageError(tr("--header {name}: this header is set by gpt4batch itself", name=name))
    if not value.isascii() or not value.isprintable():
        raise UsageError(
            tr(
                "--header {name}: its value contains line breaks or characters beyond ASCII",
                name=name,
            )
        )
    return name, value


def check(settings: Any) -> None:
    """Refuse numbers that nothing can work with and words that are not among a flag's choices."""
    for name, default, spec in flags_of(type(settings)):
        value = getattr(settings, name)
        if spec.choices and value not in (*spec.choices, default):
            raise UsageError(
                tr(
                    "--{long} {value!r}: choose one of {words}",
                    long=spec.long,
                    value=value,
                    words=", ".join(spec.choices),
                )
            )
        if spec.kind not in (int, float):
            continue
        given = f"-{spec.short} {value:g}" if spec.short else f"--{spec.long} {value:g}"
        if not abs(value) < float("inf"):  # as it is for what is no number at all
            raise UsageError(tr("{given}: must be a finite number", given=given))
        if value < 0:
            raise UsageError(tr("{given}: must not be below 0", given=given))
        if 0 < value < SMALLEST:
            raise UsageError(
                tr("{given}: must be 0, or at least {smallest:g}", given=given, smallest=SMALLEST)
            )
        if spec.kind is float and value > LARGEST:
            raise UsageError(tr("{given}: must be at most {most:,.0f}", given=given, most=LARGEST))


def tidy_addresses(settings: Any) -> None:
    """Strip the addresses of settings, and refuse those that are not valid."""
    for name, _, spec in flags_of(type(settings)):
        if name in ("url", "upload_url"):
            url = address(getattr(settings, name), f"--{spec.long}")
            object.__setattr__(settings, name, url)  # the settings are frozen


def address(url: str, name: str) -> str:
    """Return the URL without white space around it.

    Raises:
        UsageError: It is not http(s) with a host, or it holds a password; `name` is what set it.
    """
    url = url.strip()
    if not is_address(url):
        shown = without_user(url)
        raise UsageError(
            tr(
                "{name} {shown!r}: not an http(s) address such as {default_url}",
                name=name,
                shown=shown,
                default_url=DEFAULT_URL,
            )
        )
    if "@" in urlsplit(url).netloc:
        raise UsageError(
            tr(
                "{name} {url!r}: leave out the user name and password before the @; "
                "addresses are shown and logged",
                name=name,
                url=without_user(url),
            )
        )
    return url


def is_address(url: str) -> bool:
    """Return whether a URL is http(s) with a host and a port that can be called."""
    if " " in url or not url.isprintable():
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that do not match
        return False


def without_user(url: str) -> str:
    """Return a URL, good or not, as it can be shown: without user name and password."""
    start, at, rest = url.rpartition("@")
    scheme, mark, _ = start.partition("://")
    return (scheme + mark if mark else "") + rest if at else url


def moved(url: str, origin: str) -> str:
    """Return the address on another scheme and host."""
    home, parts = urlsplit(origin), urlsplit(url)
    return urlunsplit((home.scheme, home.netloc, parts.path, parts.query, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Fetching a token."""

    email: str = flag("", "email/e", "Email address of the account.", metavar="EMAIL")
    password: str = flag(
        "",
        "password/p",
        "Password. Safer: leave it out and type it when asked, pipe it in, or set "
        "GPT4BATCH_PASSWORD.",
        metavar="PASSWORD",
        secret=True,
    )
    ttl: int = flag(DEFAULT_TTL, "ttl/t", "Lifetime of the token in seconds.", metavar="SECONDS")
    url: str = flag(
        DEFAULT_TOKEN_URL,
        "url/u",
        "Address that issues tokens.",
        metavar="URL",
        env="GPT4BATCH_TOKEN_URL",  # not that of batchsvc: passwords must not go to chats
    )
    proxy: str = flag(
        "",
        "proxy",
        "Proxy, besides HTTPS_PROXY and the like.",
        metavar="URL",
    )

    def __post_init__(self) -> None:
        """Refuse values that no token service can work with."""
        if self.ttl < 1:
            raise UsageError(
                tr("--ttl {ttl}: the token must live at least one second", ttl=self.ttl)
            )
        tidy_addresses(self)
