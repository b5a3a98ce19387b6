"""Histories in which the simulation once found a broken promise: each is kept from now on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from gpt4batch.lines import rawjson

ROOT = Path(__file__).resolve().parent.parent


def played(
    lines: list[dict[str, Any]], *runs: dict[str, Any], seed: int = 0, spoken: str = "gpt4api"
) -> str:
    """Play a history and return what it broke."""
    told = {"seed": seed, "lines": lines, "runs": list(runs), "spoken": spoken}
    plan = rawjson.dumps(told).decode()
    done = subprocess.run(
        [sys.executable, "-m", "simulation", "--plan", plan],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.split("\n")[0]


KEPT = "every promise was kept"


def line(*contents: str, **more: Any) -> dict[str, Any]:
    return {"asks": [{"content": text} for text in contents], **more}


def test_power_cut_after_a_line_with_a_download_is_done_leaves_the_file_whole() -> None:
    last = {"content": "plain 1.2", "images": ["one.png"], "files": ["two.txt"]}
    lines = [{"asks": [{"content": "plain 1.0"}, {"content": "link 1.1"}, last]}]
    run = {"weather": {"latency": 0.2}, "die_at_write": 18, "power_cut": True}
    assert played(lines, run, seed=9) == KEPT


def test_reply_that_was_lost_in_a_run_that_is_killed_is_told_by_the_next() -> None:
    weather = {"reset": 0.07967481835734946, "lost": 0.0013578648747460732, "after": 1.0}
    weather |= {"cut": 0.11778284416143514, "hang": 0.011691450649996594}
    lines = [line("plain 1.0", "plain 1.1", "plain 1.2", id="q-1"), line("plain 0.0")]
    lines.append(line("plain 4.0", "plain 4.1", id="q-4"))
    assert played(lines, {"weather": weather, "die_at_round": 160}, seed=141) == KEPT


def test_chats_of_two_runs_that_are_killed_in_turn_are_told_by_the_third() -> None:
    lines = [line("plain 0.0", id="q-0"), line("plain 0.0")]
    lines.append(line("plain 3.0", id="q-3", extra={"n": 3}))
    last = {"content": "plain 0.1", "images": ["one.png"]}
    lines.append({"asks": [{"content": "plain 0.0"}, last]})
    weather = {"failed": 0.13278858263844268, "reset": 0.12105925316808658, "latency": 5.0}
    weather |= {"lost": 0.11969058453778202, "hang": 0.057055998707019884, "after": 7.0}
    flags = {"qps": 0.0, "fsync": "always"}
    runs: list[dict[str, Any]] = [
        {"weather": {"latency": 0.2}, "flags": flags, "die_at_write": 16},
        {"weather": weather, "die_at_write": 32},
    ]
    assert played(lines, *runs, seed=161) == KEPT


def test_equal_lines_finished_in_another_order_keep_their_own_extra_after_a_kill() -> None:
    lines = [line("plain 0.0", extra={"n": number}) for number in range(3)]
    flags = {"goroutine": 3, "qps": 0.0}
    for seed in range(3):
        run = {"weather": {"latency": 0.3}, "flags": flags, "die_at_write": 8}
        assert played(lines, run, seed=seed) == KEPT


def test_answers_of_equal_lines_of_which_one_was_edited_since_are_all_kept() -> None:
    lines = [line("plain 0.0", "plain 0.1", "plain 0.2") for _ in range(2)]
    weather = {"weather": {"latency": 0.2}}
    assert played(lines, {**weather, "die_at_write": 35}, {**weather, "edit": "change"}) == KEPT


def test_answers_of_three_equal_lines_of_which_one_was_edited_since_are_all_kept() -> None:
    first: dict[str, Any] = {"asks": [{"content": "plain 0.0"}]}
    lines = [first, first, {**first, "unknown": [2, "\u2028"]}]
    weather = {"weather": {"latency": 0.2}}
    for seed in range(4):  # each edits another line
        assert played(lines, weather, {**weather, "edit": "change"}, seed=seed) == KEPT


def test_line_whose_equal_one_was_edited_since_keeps_its_own_keys() -> None:
    asks = [{"content": "plain 2.0"}, {"content": "plain 2.1", "images": ["one.png"]}]
    same: dict[str, Any] = {"asks": [{"content": "plain 0.0"}]}
    lines = [{"id": "q-2", "asks": asks, "unknown": [2, "\u2028"]}, same]
    lines.append({**same, "unknown": [4, "\u2028"]})
    weather = {"weather": {"latency": 0.2}}
    runs = weather, {**weather, "die_at_write": 24, "edit": "change"}
    assert played(lines, *runs, seed=1011493) == KEPT


def test_equal_lines_that_are_done_keep_their_own_keys_when_the_input_is_reordered() -> None:
    first: dict[str, Any] = {"asks": [{"content": "plain 0.0"}]}
    weather = {"weather": {"latency": 0.2}}
    for carried in ({"unknown": [0, "\u2028"]}, {"extra": {"of": "the first"}}):
        lines = [{**first, **carried}, first]
        runs = {**weather, "die_at_round": 228}, {**weather, "edit": "move"}
        assert played(lines, *runs, seed=412281) == KEPT


def test_mark_of_a_record_that_a_power_cut_tore_is_no_damage() -> None:
    run = {"weather": {"latency": 0.2}, "die_at_write": 3, "power_cut": True}
    assert played([line("plain 6.0", id="q-6")], run, seed=210912) == KEPT


def test_run_that_is_killed_before_it_shows_its_summary_leaves_the_note_to_the_next() -> None:
    lines = [line("link 0.0", id="q-0"), line("plain 1.0", id="q-1")]
    lines += [line("plain 2.0", id="b-2"), line("plain 0.0", id="b-3")]
    weather = {"lost": 0.0168381523922831, "quota_until": 30.0, "after": 1.0}
    flags = {"goroutine": 2, "retries": 0, "fsync": "never"}
    run = {"weather": weather, "flags": flags, "die_at_round": 52}
    assert played(lines, run, seed=209461, spoken="batch") == KEPT


def test_calls_that_waited_for_a_new_token_do_not_leave_together() -> None:
    first: dict[str, Any] = {
        "asks": [{"content": "plain 0.0", "images": ["one.png"]}],
        "unknown": [1, "\u2028"],
    }
    second: dict[str, Any] = {
        "id": "q-2",
        "asks": [{"content": "plain 2.0", "images": ["one.png"]}],
    }
    last = [{"content": f"plain 5.{place}", "files": ["two.txt"]} for place in range(2)]
    lines = [first, second, line("plain 3.0"), line("plain 4.0", "plain 4.1", id="q-4")]
    lines.append({"id": "q-5", "asks": [*last, {"content": "plain 5.2"}]})
    weather = {"quota_until": 2000.0, "token_fails": 0.4946504083082212, "after": 1.0}
    run = {"weather": {**weather, "token_lasts": 7}, "flags": {"qps": 1.0}, "die_at_round": 241}
    assert played(lines, run, seed=212762) == KEPT


def test_same_seed_gives_the_same_bytes() -> None:
    def digest(seed: int) -> str:
        words = [sys.executable, "-m", "simulation", "--seed", str(seed)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout

    for seed in (2, 6, 11):
        assert digest(seed) == digest(seed)
    assert digest(2) != digest(6)


def test_fault_that_is_put_in_is_found() -> None:
    words = [sys.executable, "-m", "simulation.mutations", "--most", "40", "lines out of order"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_records_after_an_ordered_part_go_on_with_the_equal_line_that_has_their_beginning() -> None:
    asks = [{"content": "plain 0.0"}, {"content": "plain 0.1", "images": ["one.png"]}]
    lines: list[dict[str, Any]] = [line("plain 0.0", id="q-0", extra={"n": 0})]
    lines += [{"asks": asks, "unknown": [1, "\u2028"]}, line("plain 2.0", id="q-2")]
    lines.append({"asks": asks, "extra": {"n": 3}})
    weather = {"weather": {"latency": 0.2}}
    runs: list[dict[str, Any]] = [
        {**weather, "flags": {"max_calls": 3}, "die_at_round": 162},
        {**weather, "flags": {"qps": 50.0, "fsync": "always"}, "die_at_write": 7},
        {**weather, "damage": 1},
    ]
    assert played(lines, *runs, seed=1249051) == KEPT


def test_equal_line_whose_download_failed_goes_on_with_its_own_record() -> None:
    lines = [line("plain 0.0"), line("link 0.0", unknown=[1, "\u2028"])]
    lines += [line("link 3.0"), line("link 0.0")]
    weather = {"latency": 0.01, "quota_until": 3.0, "after": 7.0, "link_failed": 0.4958636534144554}
    first = {"weather": weather, "flags": {"retries": 0}, "die_at_write": 16}
    second = {"weather": {"latency": 0.2}, "die_at_write": 15}
    assert played(lines, first, second, seed=1291011) == KEPT
