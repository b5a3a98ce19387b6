"""Who has which line and which call may leave: played with workers that die, stall and repeat."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from gpt4batch.fleet.health import FEW, Health, is_lines_own
from gpt4batch.fleet.messages import ASKS, CALLS, ENDED, OK, RESTS, News, Word
from gpt4batch.fleet.table import QUIET, VOID, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable

LINES, ASKS_A_LINE, PLACES = 6, 3, 2
KEY = "k"


def news(worker: str, said: float, **other: Any) -> News:
    values: dict[str, Any] = {
        "batch": "b",
        "worker": worker,
        "topic": worker,
        "places": PLACES,
        "elsewhere": 0,
        "got": 0,
        "whole": True,
        "leaving": False,
        "trouble": [],
        "lines": {},
        "tally": {},
        "errors": {},
        "limits": [],
        "longest": 0.0,
        "said": said,
    }
    return News(**(values | other))


@dataclass
class Held:
    """A line at a worker of the model."""

    run: str
    asked: int
    step: int = 0
    call: int = 1
    state: str = ASKS
    how: str = ""
    begun: bool = False

    def word(self) -> Word:
        return Word(self.run, KEY, self.step, 0, self.call, self.state, self.how, -1.0, self.begun)


@dataclass
class Player:
    """A worker of the model; it dies and comes back under another name."""

    name: str
    life: int = 0
    got: int = 0
    lines: dict[int, Held] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.name}{self.life}"


class World:
    """A table, its workers, and messages that may be lost or come twice."""

    def __init__(self) -> None:
        self.table = Table("1.x", 0, 5.0)
        self.now = 0.0
        self.players = [Player("a"), Player("b"), Player("c")]
        self.results: list[tuple[int, str, int, int, int]] = []
        self.served: Counter[tuple[int, int]] = Counter()
        self.asked_again = 0
        self.done: set[int] = set()
        for index in range(LINES):
            self.table.offer(index, 0)

    def say(self, player: Player) -> None:
        words = {index: held.word() for index, held in player.lines.items()}
        self.table.hear(news(player.id, self.now, got=player.got), words, self.now)

    def assign(self, *, lose: bool = False) -> None:
        for row in self.table.assign(self.now):
            player = next((one for one in self.players if one.id == row.worker), None)
            if player is None or lose:
                continue
            player.got = max(player.got, row.seq)
            player.lines[row.index] = Held(row.run, row.answered)

    def grant(self, *, lose: bool = False) -> None:
        row = self.table.next_ask(self.now)
        if row is None:
            return
        assert not row.ended
        assert not row.out
        self.asked_again += self.table.grant(row, self.now)
        player = next((one for one in self.players if one.id == row.worker), None)
        held = player.lines.get(row.index) if player is not None else None
        if lose or held is None or held.run != row.run or held.call != row.out:
            return
        held.state, held.begun = CALLS, True

    def answer(self, player: Player) -> None:
        for index, held in player.lines.items():
            if held.state == CALLS:
                self.served[index, held.asked] += 1
                held.asked, held.step, held.how = held.asked + 1, held.step + 1, OK
                self.results.append((index, held.run, held.step, held.call, held.asked))
                ended = held.asked == ASKS_A_LINE
                held.state, held.begun = (ENDED, False) if ended else (ASKS, True)
                held.call += not ended
                return

    def take(self, *, again: bool = False) -> None:
        if not self.results:
            return
        index, run, step, call, answered = self.results[0]
        if not again:
            self.results.pop(0)
        row = self.table.rows.get(index)
        if row is None or row.ended:
            return
        fresh = self.table.take(row, run, step, call, OK)
        if not fresh and answered <= row.answered:
            return
        row.answered = answered
        if answered == ASKS_A_LINE:
            self.done.add(index)
            self.table.end(row)
            self.table.forget(index)
        elif row.run != run:
            self.table.move(row)

    def drop(self) -> None:
        for worker, index, run in self.table.drops:
            for player in self.players:
                held = player.lines.get(index)
                if player.id != worker or held is None or held.run != run:
                    continue
                if held.state != CALLS:
                    del player.lines[index]
        self.table.drops.clear()

    def kill(self, player: Player) -> None:
        for index, held in player.lines.items():
            self.served[index, held.asked] += held.state == CALLS  # for nobody
        player.life += 1
        player.got = 0
        player.lines.clear()

    def tick(self, seconds: float) -> None:
        self.now += seconds
        list(self.table.silent(self.now))

    def round(self) -> None:
        """Let a moment pass in which nothing goes wrong."""
        for player in self.players:
            self.say(player)
        self.drop()
        self.assign()
        for player in self.players:
            self.say(player)
            self.grant()
        self.tick(0.4)

    def play(self, kind: str, player: Player, *, lose: bool) -> None:
        """Let one thing happen; a message may be lost."""
        ways: dict[str, Callable[[], None]] = {
            "round": self.round,
            "say": lambda: None if lose else self.say(player),
            "assign": lambda: self.assign(lose=lose),
            "grant": lambda: self.grant(lose=lose),
            "answer": lambda: self.answer(player),
            "take": self.take,
            "again": lambda: self.take(again=True),
            "drop": lambda: None if lose else self.drop(),
            "kill": lambda: self.kill(player),
            "tick": lambda: self.tick(0.4),
            "long": lambda: self.tick(3.0),
        }
        ways[kind]()

    def check(self) -> None:
        twice = sum(count - 1 for count in self.served.values() if count > 1)
        assert twice <= self.asked_again
        for member in self.table.members.values():
            assert len(member.rows) - member.waiting <= PLACES
            assert member.waiting == sum(not row.begun for row in member.rows.values())
        assert self.table.waiting == sum(one.waiting for one in self.table.members.values())
        assert self.table.out == sum(row.out > 0 for row in self.table.rows.values())
        held = Counter(index for member in self.table.members.values() for index in member.rows)
        assert all(count == 1 for count in held.values())


USUAL = ("say", "assign", "grant", "answer", "take", "drop")
EVENTS = (*USUAL, *["round"] * 4, "answer", "again", "kill", "tick", "long")
COURSE = st.lists(
    st.tuples(st.sampled_from(EVENTS), st.integers(0, 2), st.integers(0, 9).map(lambda n: n == 9)),
    max_size=200,
)


@given(COURSE)
def test_lines_end_once_and_asks_are_asked_twice_only_as_told(
    events: list[tuple[str, int, bool]],
) -> None:
    world = World()
    for kind, which, lose in events:
        world.play(kind, world.players[which], lose=lose)
        world.check()
    for _ in range(300):  # and then nothing goes wrong any more
        for player in world.players:
            world.answer(player)
        world.take()
        world.round()
        world.check()
    assert world.done == set(range(LINES))


def member_of(table: Table, worker: str, now: float, **other: Any) -> None:
    table.hear(news(worker, now, **other), {}, now)


def held_row(table: Table) -> Row:
    """Return the only line, at worker `a`, with its call out."""
    table.offer(0, 0)
    member_of(table, "a", 0.1)
    (row,) = table.assign(0.1)
    word = Word(row.run, KEY, 0, 0, 1, ASKS, "", -1.0, False)
    table.hear(news("a", 0.2, got=1), {0: word}, 0.2)
    assert table.next_ask(0.2) is row
    table.grant(row, 0.2)
    return row


def test_line_without_a_call_out_moves_soon_and_one_with_it_after_the_lease() -> None:
    table = Table("1.x", 0, 20.0)
    row = held_row(table)
    table.offer(1, 0)
    (other,) = table.assign(0.3)
    list(table.silent(0.3 + QUIET + 0.1))
    assert (other.run, row.worker) == ("", "a")
    assert list(table.silent(21.0)) == ["a"]
    assert row.unsure == {"1.x.1": 1}


def test_call_that_ended_unseen_is_not_asked_again() -> None:
    table = Table("1.x", 0, 20.0)
    row = held_row(table)
    word = Word(row.run, KEY, 0, 0, 1, RESTS, "", -1.0, True)
    table.hear(news("a", 0.5, got=1), {0: word}, 0.5)
    assert not row.out
    assert [call.line for call in table.over] == [0]


def test_result_that_comes_twice_says_nothing_of_a_later_call() -> None:
    table = Table("1.x", 0, 20.0)
    row = held_row(table)
    assert table.take(row, row.run, 1, 1, OK)
    word = Word(row.run, KEY, 1, 1, 2, ASKS, OK, -1.0, True)
    table.hear(news("a", 0.5, got=1), {0: word}, 0.5)
    assert table.next_ask(0.5) is row
    table.grant(row, 0.5)
    table.move(row)
    assert not table.take(row, "1.x.1", 1, 1, OK)  # nsqd brings it once more
    assert row.unsure == {"1.x.1": 2}
    assert not table.take(row, "1.x.1", 2, 2, OK)
    assert not row.unsure


def test_permit_that_was_lost_is_given_again_and_costs_nothing() -> None:
    table = Table("1.x", 0, 20.0)
    row = held_row(table)
    word = Word(row.run, KEY, 0, 0, 1, ASKS, "", -1.0, False)
    late = 0.3 + VOID
    table.hear(news("a", late, got=1), {0: word}, late)
    assert table.next_ask(late) is row
    assert not table.grant(row, late)


def test_call_waits_until_the_results_before_it_are_in_the_log() -> None:
    table = Table("1.x", 0, 20.0)
    row = held_row(table)
    word = Word(row.run, KEY, 1, 0, 2, ASKS, OK, -1.0, True)
    table.hear(news("a", 0.5, got=1), {0: word}, 0.5)
    assert table.next_ask(0.5) is None
    assert table.take(row, row.run, 1, 1, OK)
    assert table.next_ask(0.5) is row


def test_line_of_an_earlier_coordinator_stays_where_it_is() -> None:
    table = Table("2.y", 0, 20.0)
    row = table.offer(0, 0)
    row.unsure["1.x.1"] = 1
    word = Word("1.x.1", KEY, 0, 0, 1, CALLS, "", -1.0, True)
    table.hear(news("a", 0.1), {0: word}, 0.1)
    assert (row.worker, row.out, row.unsure) == ("a", 1, {})
    table.hear(news("b", 0.2), {0: word._replace(run="1.x.9")}, 0.2)
    assert table.drops == [("b", 0, "1.x.9")]


def test_lines_of_a_worker_without_places_go_to_one_that_has_some() -> None:
    table = Table("1.x", 0, 20.0)
    for index in range(20):
        table.offer(index, 0)
    member_of(table, "a", 0.1, elsewhere=PLACES)
    member_of(table, "b", 0.1)
    table.assign(0.1)
    assert table.members["a"].waiting < table.members["b"].waiting


def test_slow_pace_leaves_few_lines_waiting() -> None:
    table = Table("1.x", 0.5, 20.0)
    for index in range(100):
        table.offer(index, 0)
    member_of(table, "a", 0.1, places=100)
    assert len(table.assign(0.1)) == 9


def test_worker_that_only_fails_is_left_out_and_tried_again_later() -> None:
    health, both = Health(), ("good", "hole")
    health.done("good", files=True, downloads=False)
    for _ in range(FEW):
        assert health.fit("hole", both, 0.0)
        health.failed("hole", "attachment", "there is no such folder")
    assert not health.fit("hole", both, 0.0)
    assert health.left_out == {"hole": "there is no such folder"}
    assert health.fit("hole", both, 10.5)
    assert not health.fit("hole", both, 13.0)
    health.done("hole", files=False, downloads=False)
    assert not health.fit("hole", both, 13.0)
    health.done("hole", files=True, downloads=False)
    assert health.fit("hole", both, 13.0)
    assert not health.left_out


def test_workers_that_all_fail_are_all_fit() -> None:
    health, both = Health(), ("a", "b")
    for worker in both:
        for _ in range(FEW):
            health.failed(worker, "chat", "502")
    assert all(health.fit(worker, both, 0.0) for worker in both)
    assert not health.left_out


def test_refusal_of_a_line_is_the_lines_own() -> None:
    assert is_lines_own("reply", 200)
    assert is_lines_own("chat", 400)
    assert not is_lines_own("chat", 404)
    assert not is_lines_own("attachment", 501)


def test_first_worker_that_came_is_not_believed_before_others_could_follow() -> None:
    table = Table("1.x", 0, 30)
    member_of(table, "hole", 10.0)
    row = table.offer(0, 0)
    row.tried.add("hole")
    for _ in table.silent(11.0):
        pass
    assert not table.alone(row)
    member_of(table, "hole", 13.5)
    for _ in table.silent(13.5):
        pass
    assert table.alone(row)
    member_of(table, "good", 13.6)
    assert not table.alone(row)
