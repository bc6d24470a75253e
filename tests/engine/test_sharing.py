"""Blocks and features that are shared, kept and continued."""

from __future__ import annotations

import pytest

from octavo.engine.sequence import Ending, Job, Media, Status
from octavo.errors import BudgetExceeded
from tests.engine.machine import drain, finish
from tests.engine.making import job, make, parts, turn


def test_features_bound_how_many_pictures_are_held_and_equal_ones_count_once() -> None:
    scheduler, machine = make(feature_bytes=10, chunk=4)
    for name, key in (("a", b"p"), ("b", b"q"), ("c", b"p")):
        scheduler.add(job(name, prompt=12, new=2, media=(Media(1, 8, key, 6),)))
    step = turn(scheduler, machine)
    # "b" is held up at its picture, and does not hold "c" up.
    assert parts(step) == [("a", 0, 4), ("b", 0, 1), ("c", 0, 4)]
    ended = drain(scheduler, machine)
    assert len(ended) == 3
    assert not scheduler.step().unseen or not machine.features


def test_who_holds_features_gives_way_to_who_could_not_move_without_them() -> None:
    scheduler, machine = make(feature_bytes=14, chunk=8)
    scheduler.add(job("old", prompt=40, media=(Media(0, 36, b"o", 6),)))
    low = scheduler.add(job("low", prompt=40, media=(Media(0, 36, b"p", 6),)))
    turn(scheduler, machine)
    scheduler.add(job("high", prompt=20, priority=1, media=(Media(4, 12, b"q", 6),)))
    step = turn(scheduler, machine)
    assert parts(step) == [("high", 0, 4), ("old", 8, 8), ("low", 8, 8)]
    assert not step.preempted, "it could move up to its picture"
    step = turn(scheduler, machine)
    assert parts(step) == [("high", 4, 8), ("old", 16, 8)]
    assert [one.id for one in step.preempted] == ["low"]
    assert low.feature_bytes == 0
    assert step.unseen == [b"p"]
    assert len(drain(scheduler, machine)) == 3


def test_pictures_larger_together_than_the_budget_are_seen_one_after_the_other() -> None:
    scheduler, machine = make(feature_bytes=10)
    media = (Media(0, 4, b"p", 6), Media(5, 4, b"q", 6))
    scheduler.add(job("a", prompt=12, media=media))
    assert parts(turn(scheduler, machine)) == [("a", 0, 5)]
    step = turn(scheduler, machine)
    assert step.unseen == [b"p"]
    assert parts(step) == [("a", 5, 7)]


def questions(count: int, *, key: bytes = b"p", prompt: int = 40) -> list[Job]:
    picture = (Media(0, prompt - 2, key, 1),)
    return [Job(f"{key!r} {i}", (7,) * (prompt - 1) + (i,), 2, picture) for i in range(count)]


def test_questions_about_one_picture_compute_it_once_even_when_they_come_together() -> None:
    scheduler, machine = make(feature_bytes=1, chunk=8, total=200)
    for one in questions(6):
        scheduler.add(one)
    drain(scheduler, machine)
    # 9 of 10 blocks are shared; each has a block and a decoded token of its own.
    assert machine.computed <= 36 + 6 * (4 + 1)


def test_a_picture_that_differs_is_computed() -> None:
    scheduler, machine = make(feature_bytes=1)
    for one in (*questions(1), *questions(1, key=b"q")):
        scheduler.add(one)
        drain(scheduler, machine)
    assert machine.computed >= 80


def test_the_last_token_is_computed_even_when_all_is_cached() -> None:
    scheduler, machine = make()
    for _ in range(2):
        scheduler.add(Job("a", (5,) * 16, 2))
        drain(scheduler, machine)
    assert machine.computed == (16 + 1) + (4 + 1)


def test_without_sharing_all_is_computed() -> None:
    scheduler, machine = make(feature_bytes=1, share=False)
    for one in questions(3):
        scheduler.add(one)
    drain(scheduler, machine)
    assert machine.computed >= 3 * 40


def test_an_answer_that_was_cut_goes_on_from_its_blocks() -> None:
    scheduler, machine = make()
    sequence = scheduler.add(job("a", prompt=9, new=3, keep=True))
    while not scheduler.idle:
        turn(scheduler, machine)
    assert sequence.ending is Ending.LENGTH
    assert scheduler.resume("a", 4) is sequence
    assert (sequence.ending, sequence.status) == (None, Status.WAITING)
    steps = [turn(scheduler, machine) for _ in range(4)]
    assert [parts(step) for step in steps] == [[("a", 11 + i, 1)] for i in range(4)]
    assert sequence.generated == 7
    assert scheduler.idle
    scheduler.forget("a")
    assert scheduler.blocks.available == scheduler.blocks.total


def test_kept_blocks_go_before_anybody_has_to_give_way_or_wait() -> None:
    scheduler, machine = make(total=10)
    kept = scheduler.add(job("kept", prompt=18, new=2, keep=True))
    drain(scheduler, machine)
    said = list(kept.tokens)
    scheduler.add(job("b", prompt=36, new=4))
    step = turn(scheduler, machine)
    assert [part.id for part in step.slices] == ["b"]
    assert kept.blocks == []
    scheduler.resume("kept", 3)
    ended = drain(scheduler, machine)
    assert [one.id for one in ended] == ["b", "kept"]
    assert kept.tokens[: len(said)] == said
    assert kept.generated == 5


def test_kept_blocks_are_not_given_up_for_a_place_that_is_not_free() -> None:
    scheduler, machine = make(running=1)
    kept = scheduler.add(job("kept", keep=True))
    drain(scheduler, machine)
    scheduler.add(job("a", new=9))
    turn(scheduler, machine)
    scheduler.add(job("b"))
    turn(scheduler, machine)
    assert kept.blocks


def test_two_turns_after_one_share_its_last_block_and_copy_it() -> None:
    scheduler, machine = make()
    first = scheduler.add(job("first", prompt=9, new=3, keep=True))
    drain(scheduler, machine)
    for name in "ab":
        scheduler.add(Job(name, (*first.tokens, ord(name)), 3, after="first"))
    step = turn(scheduler, machine)
    assert parts(step) == [("a", 11, 2), ("b", 11, 2)]
    assert [copy.tokens for copy in step.copies] == [3, 3]
    assert {copy.source for copy in step.copies} == {first.blocks[-1]}
    drain(scheduler, machine)


def test_a_turn_that_does_not_begin_with_the_kept_one_shares_only_what_is_equal() -> None:
    scheduler, machine = make()
    first = scheduler.add(job("first", prompt=9, new=3, keep=True))
    drain(scheduler, machine)
    tokens = [*first.tokens, 5]
    tokens[9] += 1
    scheduler.add(Job("a", tuple(tokens), 3, after="first"))
    step = turn(scheduler, machine)
    assert parts(step) == [("a", 8, 5)]
    assert not step.copies


def test_a_continued_one_keeps_its_own_blocks_when_others_lose_theirs() -> None:
    scheduler, machine = make(total=8, share=False)
    for name in "ab":
        scheduler.add(job(name, prompt=15, new=2, keep=True))
    drain(scheduler, machine)
    assert scheduler.blocks.available == 0
    scheduler.resume("a", 3)
    assert parts(turn(scheduler, machine)) == [("a", 16, 1)]
    drain(scheduler, machine)


def test_a_parked_turn_comes_back_whole_though_its_parent_is_still_kept() -> None:
    scheduler, machine = make(running=1, parks=lambda _: True, host_blocks=9)
    first = scheduler.add(job("first", prompt=9, new=3, keep=True))
    drain(scheduler, machine)
    scheduler.add(Job("next", (*first.tokens, 1, 2), 9, after="first"))
    for _ in range(3):
        turn(scheduler, machine)
    scheduler.add(job("high", new=2, priority=1))
    assert [one.parked for one in turn(scheduler, machine).preempted] == [True]
    assert first.blocks
    drain(scheduler, machine)


def test_features_that_pass_from_one_to_the_next_are_not_forgotten() -> None:
    scheduler, machine = make(running=1, feature_bytes=6)
    for name in "ab":
        scheduler.add(job(name, new=2, media=(Media(1, 4, b"p", 6),)))
    unseen = [turn(scheduler, machine).unseen for _ in range(5)]
    assert unseen == [[], [b"p"], [], [b"p"], []]
    scheduler.add(job("a", new=1, media=(Media(1, 4, b"p", 6),)))
    step = scheduler.step()
    finish(scheduler, step, machine.run(step))
    scheduler.add(job("b", new=1, media=(Media(1, 4, b"p", 6),)))
    assert not turn(scheduler, machine).unseen


def test_a_continuation_that_could_never_fit_is_refused_and_stays_kept() -> None:
    scheduler, machine = make(total=4)
    sequence = scheduler.add(job("a", prompt=10, new=2, keep=True))
    while not scheduler.idle:
        turn(scheduler, machine)
    with pytest.raises(BudgetExceeded):
        scheduler.resume("a", 6)
    assert (sequence.status, sequence.limit) == (Status.FINISHED, 2)
    scheduler.resume("a", 5)
    while not scheduler.idle:
        turn(scheduler, machine)
    assert sequence.generated == 7
