"""One module knows the wire of a service, and one the form of an input: the rest does not change.

The names are those of the service's documentation.
"""

from __future__ import annotations

import ast
import re
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from aiohttp import web

import gpt4batch
from gpt4batch.control import Control
from gpt4batch.dialects.base import CHAT, NOWHERE, Answer, Call, Links, Refusal, Thread, Turn
from gpt4batch.dialects.gpt4api import Gpt4Api
from gpt4batch.lines import rawjson
from gpt4batch.lines.formats.asks import Asks
from gpt4batch.service.client import Client
from gpt4batch.service.conversation import Conversation, Manner, Outcome
from gpt4batch.service.pacing import Pacer
from gpt4batch.service.tokens import Tokens
from gpt4batch.service.transport import AiohttpTransport

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gpt4batch.lines.parse import Line

PRODUCT = Path(gpt4batch.__file__).parent
DIALECT = "dialects/gpt4api.py"

WIRE = (
    # of a chat and its reply
    *("conversation_id", "parent_message_id", "message_id", "history_and_training_disabled"),
    *("gizmo_id", "parts", "attachments", "end_turn", "contents", "downloads"),
    # of an upload and its reply
    *("multimodal", "my_files", "part", "attachment", "asset_pointer", "mimeType", "size_bytes"),
    # inside a reply's contents
    *("author", "recipient", "content_type", "metadata", "model_slug", "finish_details"),
    *("is_visually_hidden_from_conversation", "message_type", "parent_id"),
    # of links and addresses
    *("href", "download_url", "all-tools", "gizmos", "uploaded"),
    # of the account
    *("access_token", "expired_at", "username"),
)

ELSEWHERE = {
    "settings.py": "flags of the original: their names, defaults and help",
    "service/credentials.py": "the account's file, which either tool reads, is the service's reply",
    "dialects/meaning.py": "fields of errors in the shapes of all services",
    "dialects/known.py": "a flag of gpt4api is refused for the other one",
    "dialects/openai.py": "a key of lines of gpt4api is refused",
    "cli/mocksvc.py": "tells which addresses the embedded service has",
}
"""The modules that know such a name for another reason, and the reason."""

AROUND = "\"'/: ."
QUOTED = re.compile(r'"([\w-]+)"')

OTHER = {
    "attachment": (  # a stage
        *("errors.py", "service/client.py", "batch/progress.py", "fleet/health.py"),
        "cli/farewell.py",
    ),
    "attachments": (
        "batch/preflight.py",
        "batch/survey.py",
        "cli/check.py",
        "convert/results.py",
        "view/save.py",
    ),
    "downloads": (
        *(
            "batch/preflight.py",
            "cli/check.py",
            "cli/farewell.py",
            "cli/metrics.py",
            "convert/results.py",
        ),
        *("fleet/coordinator.py", "fleet/health.py", "fleet/messages.py", "lines/steps.py"),
        *("view/detail.py", "view/save.py"),
    ),
    "part": ("fleet/messages.py", "service/file_names.py", "view/report.py"),  # of files
    "gizmo_id": ("convert/columns.py", "convert/settings.py", "convert/tables.py"),
}
"""Names that are our own words too, and where they are."""


def known_in(source: str) -> set[str]:
    """Return the names of the wire that are keys or ends of addresses in a program."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            found.add(node.attr if "_" in node.attr else "")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            found.add(text.strip(AROUND))
            found.update(QUOTED.findall(text))
    return found.intersection(WIRE)


def modules() -> list[str]:
    found = (path.relative_to(PRODUCT).as_posix() for path in PRODUCT.rglob("*.py"))
    return sorted(name for name in found if not name.startswith("mock/") and name != DIALECT)


@pytest.mark.parametrize("module", modules())
def test_no_other_module_knows_a_field_of_the_wire(module: str) -> None:
    if module in ELSEWHERE:
        return
    found = known_in((PRODUCT / module).read_text())
    assert {name for name in found if module not in OTHER.get(name, ())} == set()


def test_the_dialect_knows_the_fields_that_it_sends_and_reads() -> None:
    assert len(known_in((PRODUCT / DIALECT).read_text())) > 20


def _any(_value: Any) -> str:
    return ""


class Completions(Gpt4Api):
    """A service that remembers nothing: each call has the whole conversation in it."""

    name = "completions"
    options: Mapping[str, Any] = {"model": _any, "system": _any}

    def wrong(self, line: Line, options: Mapping[str, Any]) -> str:
        return ""

    upload_scope: Literal["thread", "inline"] = "inline"

    def chat(self, turn: Turn) -> Call:
        system = turn.options.get("system")
        messages = [{"role": "system", "content": system}] if system else []
        files = {upload.note["path"]: upload.note["base64"] for upload in turn.uploads}
        for place, ask in enumerate(turn.asks):
            sent = [files[path].decode() for path in (*ask.images, *ask.files)]
            messages.append({"role": "user", "content": [ask.content, *sent]})
            if place < len(turn.answers):
                messages.append(rawjson.loads(turn.answers[place])["choices"][0]["message"])
        return Call(CHAT, {"model": turn.options["model"], "messages": messages})

    def answer(self, reply: Mapping[str, Any], said: str = "", path: str = "") -> Answer | Refusal:
        return Answer()

    def thread(self, reply: Mapping[str, Any]) -> Thread | Refusal:
        return NOWHERE

    def links(self, reply: Mapping[str, Any]) -> Links:
        return Links([])


async def test_dialect_without_uploads_or_memory_is_spoken_by_the_same_conversation(
    scripted: Any, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")

    async def answer(request: web.BaseRequest) -> web.Response:
        number = len((await request.json())["messages"])
        message = {"role": "assistant", "content": f"answer {number}"}
        return web.json_response({"choices": [{"message": message}]})

    async def keep(_outcome: Outcome) -> None:
        pass

    dialect, control = Completions(), Control()
    asks = [{"content": "one", "images": ["a.png"]}, {"content": "two"}]
    raw = rawjson.dumps({"asks": asks, "system": "be brief", "model": "own"})
    async with scripted(answer) as server, AiohttpTransport() as transport:
        client = Client(
            transport,
            {CHAT: f"{server.origin}/v1/chat/completions"},
            Tokens("a-token"),
            Pacer(0, control),
            control,
            dialect=dialect,
        )
        conversation = Conversation(client, None, Manner(tmp_path, {"model": "m"}), keep)
        outcome = await conversation.hold(Asks().parse(raw))
        bodies = server.bodies()
    assert outcome.done
    first = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": ["one", b64encode(b"picture").decode()]},
    ]
    more = [
        {"role": "assistant", "content": "answer 2"},
        {"role": "user", "content": ["two"]},
    ]
    assert bodies == [
        {"model": "own", "messages": first},
        {"model": "own", "messages": first + more},
    ]
