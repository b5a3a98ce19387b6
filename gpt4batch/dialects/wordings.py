"""The codes and wordings of services, and what each means: data, with a test for each row.

A code means what it means wherever it stands. Words are looked at only where no code is known, and
only in the error text of the service itself; words that repeat the user's question count as none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from gpt4batch.dialects.base import Reason

CODES: dict[str, Reason] = {
    # The account is empty, and nothing else is meant.
    "credit_balance_exhausted": Reason.EMPTY_ACCOUNT,  # OpenAI, as the three after it
    "organization_spend_limit_exceeded": Reason.EMPTY_ACCOUNT,
    "project_spend_limit_exceeded": Reason.EMPTY_ACCOUNT,
    "organization_usage_limit_exceeded": Reason.EMPTY_ACCOUNT,
    "billing_hard_limit_reached": Reason.EMPTY_ACCOUNT,
    "billing_not_active": Reason.EMPTY_ACCOUNT,
    "enforced_spend_limit_reached": Reason.EMPTY_ACCOUNT,  # Anthropic
    "billing_error": Reason.EMPTY_ACCOUNT,
    "arrearage": Reason.EMPTY_ACCOUNT,  # DashScope
    "allocationquota.freetieronly": Reason.EMPTY_ACCOUNT,
    "accountoverdueerror": Reason.EMPTY_ACCOUNT,  # Volcano Ark
    "insufficient_user_quota": Reason.EMPTY_ACCOUNT,  # one-api and new-api
    "insufficient_balance": Reason.EMPTY_ACCOUNT,
    "insufficient_credits": Reason.EMPTY_ACCOUNT,
    "insufficient_funds": Reason.EMPTY_ACCOUNT,
    "insufficient_account_balance": Reason.EMPTY_ACCOUNT,
    # The key is not accepted, whatever the status.
    "invalid_api_key": Reason.AUTH,  # OpenAI, DashScope
    "invalidapikey": Reason.AUTH,
    "invalid_authentication_error": Reason.AUTH,  # Moonshot
    "incorrect_api_key_error": Reason.AUTH,
    # An empty account, or a limit that passes.
    "insufficient_quota": Reason.UNCLEAR_QUOTA,
    "exceeded_current_quota_error": Reason.UNCLEAR_QUOTA,  # Moonshot
    "quota_exceeded": Reason.UNCLEAR_QUOTA,
    # one-api also holds back for calls in flight.
    "pre_consume_token_quota_failed": Reason.UNCLEAR_QUOTA,
    "openrouter_in_flight_budget": Reason.UNCLEAR_QUOTA,
    # Fewer calls a minute.
    "rate_limit_exceeded": Reason.RATE_LIMIT,
    "rate_limit_error": Reason.RATE_LIMIT,
    "rate_limit_reached_error": Reason.RATE_LIMIT,
    "slow_down": Reason.RATE_LIMIT,
    "too_many_requests": Reason.RATE_LIMIT,
    "limit_requests": Reason.RATE_LIMIT,  # DashScope, as those after it
    "limit_burst_rate": Reason.RATE_LIMIT,
    "throttling": Reason.RATE_LIMIT,
    "throttling.ratequota": Reason.RATE_LIMIT,
    "throttling.burstrate": Reason.RATE_LIMIT,
    "throttling.allocationquota": Reason.RATE_LIMIT,
    # Too busy.
    "engine_overloaded_error": Reason.CROWDED,
    "server_is_overloaded": Reason.CROWDED,
    "overloaded_error": Reason.CROWDED,
    "capacity_exceeded": Reason.CROWDED,
    # The question is not answered.
    "content_filter": Reason.FILTERED,
    "content_policy_violation": Reason.FILTERED,
    "responsibleaipolicyviolation": Reason.FILTERED,
    "data_inspection_failed": Reason.FILTERED,
    "datainspectionfailed": Reason.FILTERED,
    "moderation_blocked": Reason.FILTERED,
    "sensitive_words_detected": Reason.FILTERED,
    "prompt_blocked": Reason.FILTERED,
    # The conversation, or a file, is no longer known.
    "conversation_not_found": Reason.HISTORY_LOST,
    "conversation_expired": Reason.HISTORY_LOST,
    "conversation_not_exist": Reason.HISTORY_LOST,
    "parent_message_not_found": Reason.HISTORY_LOST,
    "file_not_found": Reason.UPLOAD_LOST,
    "file_expired": Reason.UPLOAD_LOST,
    "attachment_not_found": Reason.UPLOAD_LOST,
    "asset_not_found": Reason.UPLOAD_LOST,
    # The call is wrong in itself.
    "model_not_found": Reason.REJECTED,
    "gizmo_not_found": Reason.REJECTED,
    "account_not_found": Reason.REJECTED,
    "context_length_exceeded": Reason.REJECTED,
}


class Wording(NamedTuple):
    """What some words mean where a reply has one of some statuses.

    Args:
        reason: What they mean.
        words: The pattern that finds them, whatever their case.
        statuses: Where they count; empty is everywhere.
        whole: They have to be the whole error text.
        longest: The longest error text in which they count, in characters.
        passing: Beside a wait of minutes at most, a 429 with them is a limit of calls a minute.
    """

    reason: Reason
    words: str
    statuses: frozenset[int] = frozenset()
    whole: bool = False
    longest: int = 300
    passing: bool = False

    @property
    def pattern(self) -> re.Pattern[str]:
        """Return what finds the words; made at the first refusal, for most runs have none."""
        return re.compile(self.words, re.IGNORECASE)


def _any(*patterns: str) -> str:
    return "|".join(patterns)


TOO_MANY = frozenset({403, 429, 503})
REFUSED = frozenset({400, 403, 409, 422, 451})
UNPAID = frozenset({200, 400, 402, 403, 406, 412, 429, 500, 503})
LONG = 4096

ID = r"[\w.:'\"/-]+"
THREAD = r"(?:the |this |your )?(?:conversation|parent message|parent_message_id)"
FILE = r"(?:the |this |your )?(?:attachment|asset|file|part|upload)"
GONE = (
    r"(?:(?:was|is|could|can) ?not (?:be )?found|not found|has expired|is expired|expired|is gone"
    r"|does(?: not|n't) exist|no longer exists|is unknown|was deleted|is not known)"
)
GONE_ZH_ONCE = r"(?:不存在|未找到|找不到|已过期|已失效|已被删除)"
GONE_ZH = rf"{GONE_ZH_ONCE}(?:或者?{GONE_ZH_ONCE})?"

WORDINGS: tuple[Wording, ...] = (
    # Whole texts that say that the service forgot something.
    Wording(
        Reason.HISTORY_LOST,
        _any(
            rf"{THREAD}(?: id)?(?: {ID})? {GONE}",
            rf"(?:no such|unknown|invalid) conversation(?:[_ ]id)?(?::? {ID})?",
            r"can(?:no|')t load conversation(?: [\w-]+)?",
            r"parent_message_id is (?:not the last message|[\w-]+, but the last message of"
            r" conversation [\w-]+ is [\w -]+)",
            rf"(?:该|此|当前)?(?:会话|对话)(?:id|ID)?{GONE_ZH}",
        ),
        whole=True,
    ),
    Wording(
        Reason.UPLOAD_LOST,
        _any(
            rf"{FILE}(?: id)?(?: {ID})? {GONE}",
            rf"(?:no such|unknown) (?:attachment|asset|file|upload)(?:[_ ]id)?(?::? {ID})?",
            rf"(?:parts|attachments): (?:id|asset_pointer) {ID} was never uploaded",
            rf"(?:parts|attachments): {ID} (?:belongs to another conversation"
            r"|is not described as its upload's reply did)",
            rf"(?:该|此)?(?:附件|文件){GONE_ZH}",
        ),
        whole=True,
    ),
    # What may repeat a question comes before the words that a question might hold.
    Wording(
        Reason.FILTERED,
        _any(
            r"\bmoderation\b|content (?:policy|filter|management)|usage polic|\bflagged\b"
            r"|inappropriate|\bunsafe\b|\bsensitive\b|content (?:was )?refused|disallowed content",
            r"违规|敏感|审核|不当内容|安全策略",
        ),
        REFUSED,
        longest=LONG,
    ),
    # A limit a day passes, but not soon.
    Wording(
        Reason.UNCLEAR_QUOTA,
        _any(
            r"(?:quota|limit)\b.{0,200}?(?:per[ _-]?(?:day|week|month)\b|PerDay|billing cycle)",
            r"\b(?:daily|weekly|monthly) (?:quota|(?:usage |request )?limit)",
            r"(?:每天|每日|今日|当日|每周|每月|本月).{0,20}?(?:额度|次数|限制|上限|配额)",
        ),
        TOO_MANY,
        longest=LONG,
    ),
    Wording(
        Reason.RATE_LIMIT,
        _any(
            r"per[ _-]?(?:second|minute|min)\b|Per(?:Second|Minute)|rate.?limit|too many requests",
            r"\b[rt]pm\b|concurren|allocated quota exceeded",
            r"每分钟|每秒|频繁|频率|限流|并发",
        ),
        TOO_MANY,
        longest=LONG,
    ),
    # Money: it does not come back by itself.
    Wording(
        Reason.EMPTY_ACCOUNT,
        _any(
            r"(?:credit|account|your)(?:'s)? balance is (?:too low|insufficient|not enough)",
            r"insufficient (?:account )?(?:balance|funds|credits?)\b|\bout of credits?\b",
            r"(?:not enough|no) (?:credits?|balance|funds)\b|billing hard limit|in arrears",
            r"余额(?:已经?)?(?:不足|不够|用完|用尽|耗尽|为0|为零)|欠费|积分(?:已经?)?(?:不足|不够|用完|用尽|耗尽)",
        ),
        UNPAID,
    ),
    # Quota: of the account, or of some while.
    Wording(
        Reason.UNCLEAR_QUOTA,
        _any(
            r"insufficient_quota|\bquota\b.{0,60}?(?:exceeded|exhausted|used up|not enough|too low"
            r"|insufficient|reached|depleted|run out)",
            r"(?:exceed|exhaust|insufficient|reached|not enough|out of|used up|\bno\b)\w*\b.{0,30}?"
            r"\bquota",
            r"\busage limit|\bspending limit|used all (?:available )?credits",
            r"(?:额度|配额).{0,8}?(?:不足|不够|用完|用尽|耗尽|已用|失败|超)",
            r"(?:超出|超过|超限|用完|耗尽).{0,8}?(?:额度|配额)",
            r"次数(?:已经?)?(?:用完|用尽|不足|不够|耗尽|达到?上限|已用)",
        ),
        UNPAID - {402, 412},
        longest=LONG,
        passing=True,
    ),
)

NOT_THE_THREAD = (
    r"\b(?:model|gizmo|gpts?|plan|plugin|account|user|organi[sz]ation|project|route|path|endpoint"
    r"|url|page|method|api)\b|there is no /|cannot (?:get|post)\b"
    r"|模型|账户|账号|用户|接口|路径|插件"
)
"""What a 404 may be about that has nothing to do with a conversation."""

QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|「[^」]*」|‘[^’]*’|`[^`]*`|(?<!\w)'[^']*'(?!\w)")
"""A quotation: more likely the user's words than the service's."""

PREFIX = re.compile(r"^[\w.-]+: (?=.)")
SUFFIX = re.compile(r"\s*[((][^()()]*[))]$")
"""What surrounds an error text: a code before it, the id of the request behind it."""
