"""Replies that other services were seen to give: late ones, mislabelled ones, refusals by words."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

from chaos.lab import demand, read_lines
from chaos.peers import against, reply, whole
from gpt4batch.lines import rawjson

if TYPE_CHECKING:
    from chaos.lab import Lab
    from chaos.peers import Call, Peer

LATE = 0.05
"""Seconds after a reply, in which the next call takes the connection only if it is not slow."""

FORGOTTEN_LIKE = (
    "the last message contains disallowed content",
    "An unknown error occurred in this conversation",
    "The parent account of this user does not exist in this plan",
    "file type is not supported, the attachment was not processed",
)
"""Refusals that speak of messages, conversations and files, and mean none that is forgotten."""


def strays(lab: Lab) -> None:
    """Send a second reply on a kept connection: after an answer, and after a 504 as a late one."""

    def twice(peer: Peer, call: Call) -> None:
        peer.answer(call)
        call.send_later(LATE, whole(reply(call).replace(b"answer to", b"stray of")))

    def late(peer: Peer, call: Call) -> None:
        if call.tries:
            peer.answer(call)
            return
        call.send(whole(b'{"error":"gateway timeout"}', "504 Gateway Timeout"))
        call.send_later(LATE, whole(reply(call).replace(b"answer to", b"stray of")))

    for name, act in (("twice", twice), ("late", late)):
        batch = against(lab, name, act, "-q=5", "-g=1")
        batch.write(lab.size(20, 6))
        batch.bench.run("-f").expect(0)
        batch.verify()
        lab.counts.note(strays=len(batch.lines))


def mislabelled(lab: Lab) -> None:
    """Send answers that curl and Go read: a length told twice, a gzip label on a plain body."""

    def act(peer: Peer, call: Call) -> None:
        peer.answered[call.message] += 1
        body = reply(call)
        length = f"Content-Length: {len(body)}"
        if len(peer.answered) % 2:
            call.send(whole(body, "200 OK", length, length))
        else:
            call.send(whole(body, "200 OK", length, "Content-Encoding: gzip"))

    batch = against(lab, "labels", act, "-g=4")
    batch.write(lab.size(60, 10))
    batch.bench.run("-f").expect(0)
    batch.verify()


def forgotten_words(lab: Lab) -> None:
    """Refuse a resumed ask with words of conversations: its answered asks are kept."""

    def act(peer: Peer, call: Call) -> None:
        number = int(call.message.rsplit("-", 2)[1])
        if call.message.endswith("-1") and call.tries < 2:
            text = FORGOTTEN_LIKE[number % len(FORGOTTEN_LIKE)]
            call.send(whole(rawjson.dumps({"error": text}), "400 Bad Request"))
        else:
            peer.answer(call)

    batch = against(lab, "words", act, "-g=2")
    batch.write(len(FORGOTTEN_LIKE), asks=2)
    for _ in range(2):
        batch.bench.run("-f").expect(1)
        for line in read_lines(batch.bench.out):
            demand(len(line["answers"]) == 1, "an answered ask was asked again:", line)
            demand(line["iErr"]["code"] == 400, "not told:", line["iErr"])
        batch.paid_once()
    batch.bench.run("-f").expect(0)
    batch.verify()


def unclear_quota(lab: Lab) -> None:
    """Refuse for a few seconds with a minute's limit that reads like an empty account."""
    error = {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "message": "You exceeded your current quota, please check your plan and billing details. "
        "Please retry in 2.2s.",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}],
    }

    def act(peer: Peer, call: Call) -> None:
        if len(peer.answered) > 2 and time.monotonic() - _third(peer) < 3:
            call.send(whole(rawjson.dumps({"error": error}), "429 Too Many Requests"))
        else:
            peer.answer(call)

    batch = against(lab, "quota", act, "-g=4")
    batch.write(lab.size(60, 12))
    batch.bench.run("-f").expect(0)
    batch.verify()
    lab.counts.note(refused=len(batch.peer.asked) - len(batch.lines))


def _third(peer: Peer) -> float:
    """Return when the third message came."""
    return peer.asked[2][1]


def waits_of_nothing(lab: Lab) -> None:
    """Refuse with `Retry-After: 0`, and with a date that has passed: the back-off still holds."""
    waits = ("0", "Wed, 21 Oct 2015 07:28:00 GMT")

    def act(peer: Peer, call: Call) -> None:
        if call.tries < 2:
            wait = waits[len(peer.asked) % len(waits)]
            busy = whole(b'{"error":"busy"}', "503 Service Unavailable", f"Retry-After: {wait}")
            call.send(busy)
        else:
            peer.answer(call)

    batch = against(lab, "zero", act, "-g=8")
    batch.write(lab.size(24, 8))
    batch.bench.run("-f").expect(0)
    batch.verify()
    moments: dict[str, list[float]] = {}
    for message, moment in batch.peer.asked:
        moments.setdefault(message, []).append(moment)
    gaps = [later - one for times in moments.values() for one, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    demand(mean > 0.2, f"tried again after {mean:.3f} s in the mean: the back-off is gone")
    lab.counts.note(retries=len(gaps))


def sticky(lab: Lab) -> None:
    """Stand behind a balancer whose cookie leads to the conversation."""

    def act(peer: Peer, call: Call) -> None:
        node = "node=seven" in call.headers.get("cookie", "")
        if call.doc.get("conversation_id") and not node:
            call.send(whole(b'{"error":"conversation not found"}', "404 Not Found"))
            return
        peer.answered[call.message] += 1
        set_cookie = () if node else ("Set-Cookie: node=seven; Path=/; HttpOnly",)
        call.send(whole(reply(call), "200 OK", *set_cookie))

    batch = against(lab, "sticky", act, "-g=3")
    batch.write(lab.size(30, 6), asks=3)
    batch.bench.run("-f").expect(0)
    batch.verify()


def token_service_down(lab: Lab) -> None:
    """Let the service of tokens fail in passing, before it gives the new one."""
    issued = {"access_token": "chaos-token-number-two", "username": "chaos"}
    issued["expired_at"] = "2099-01-01T00:00:00Z"
    renewed = f"Bearer {issued['access_token']}"
    passing = ("502 Bad Gateway", "429 Too Many Requests", "503 Service Unavailable")

    def act(peer: Peer, call: Call) -> None:
        if call.path.endswith("/access_token"):
            if call.tries < len(passing):
                call.send(whole(b'{"error":"later"}', passing[call.tries], "Retry-After: 1"))
            else:
                call.send(whole(rawjson.dumps(issued)))
        elif len(peer.answered) < 3 or call.headers.get("authorization") == renewed:
            peer.answer(call)
        else:
            call.send(whole(b'{"error":"token expired"}', "401 Unauthorized"))

    batch = against(lab, "tokens", act, "-g=3")
    batch.write(12)
    renewing = {
        "GPT4BATCH_EMAIL": "chaos@example.com",
        "GPT4BATCH_PASSWORD": "chaos-password",
        "GPT4BATCH_TOKEN_URL": f"{batch.peer.origin}/console/access_token",
    }
    batch.bench.run("-f", env=renewing).expect(0)
    batch.verify()


def slow_files(lab: Lab) -> None:
    """Hand out files at a byte in two seconds beside good ones: the good ones come, it ends."""
    if lab.short:
        lab.counts.note(left_out=1)  # a host is given up after a while, and that is the point
        return

    def act(peer: Peer, call: Call) -> None:
        if call.path.startswith("/files/slow"):
            call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            for _ in range(1000):
                call.connection.sendall(b"x")
                time.sleep(2)
        elif call.path.startswith("/files/"):
            call.send(whole(b"good", "200 OK"))
        else:
            number = int(call.message.rsplit("-", 2)[1])
            kind = "slow" if number < 16 else "good"
            peer.answer(call, downloads=[f"{peer.origin}/files/{kind}-{number}.bin"])

    batch = against(lab, "files", act, "-g=8", "--retries=1")
    batch.write(24)
    run = batch.bench.run("-f", patience=600).expect(1)
    found = read_lines(batch.bench.out)
    good = [path for path in batch.bench.downloads.iterdir() if path.read_bytes() == b"good"]
    demand(len(good) == 8, f"{len(good)} good files of 8", run.errors)
    demand(all(len(line["answers"]) == 1 for line in found), "answers lost")
    stages = [line["iErr"]["stage"] for line in found if "iErr" in line]
    demand(stages == ["download"] * 16, "what failed:", stages)
    batch.paid_once()
    lab.counts.note(files=len(good), given_up=len(stages))
