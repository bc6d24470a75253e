"""The state of one request: counts, and keys that follow from content."""

from __future__ import annotations

import random

import pytest

from octavo.engine.sequence import Ending, Job, Media, Sequence
from octavo.errors import ConfigError


def sequence(tokens: list[int], *media: Media, root: bytes = b"") -> Sequence:
    return Sequence(Job("a", tuple(tokens), 4, media, root=root), 0, (0.0, 1))


def test_counts() -> None:
    one = sequence([7] * 10, Media(2, 3, b"p", 5), Media(6, 1, b"q", 6))
    assert (one.prompt_tokens, one.media_tokens, one.generated) == (10, 4, 0)
    assert (one.length, one.pending, one.most) == (10, 10, 13)
    one.computed = 10
    one.tokens.append(3)
    assert (one.length, one.pending, one.generated) == (11, 1, 1)
    assert one.job.tokens == (7,) * 10
    assert one.feature_bytes == 0
    one.holding.append(one.job.media[1])
    assert one.feature_bytes == 6


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [(0, 2, ""), (0, 3, "p"), (4, 5, "p"), (5, 6, ""), (5, 9, "q"), (0, 9, "pq"), (7, 10, "")],
)
def test_media_in_a_range(start: int, end: int, found: str) -> None:
    one = sequence([7] * 10, Media(2, 3, b"p"), Media(6, 1, b"q"))
    assert b"".join(m.key for m in one.media_in(start, end)).decode() == found


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": ()},
        {"max_new_tokens": 0},
        {"media": (Media(4, 2, b"p"),)},
        {"media": (Media(-1, 2, b"p"),)},
        {"media": (Media(0, 0, b"p"),)},
        {"media": (Media(0, 1, b"p", -1),)},
        {"media": (Media(0, 3, b"p"), Media(2, 1, b"q"))},
        {"media": (Media(3, 1, b"p"), Media(0, 1, b"q"))},
    ],
)
def test_jobs_that_cannot_be_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="a: "):
        Job(**{"id": "a", "tokens": (1, 2, 3, 4, 5), "max_new_tokens": 1, **changes})


def test_only_answers_that_are_there_can_be_continued() -> None:
    assert {ending for ending in Ending if ending.whole} == {Ending.STOP, Ending.LENGTH}


def keys(one: Sequence, size: int) -> list[bytes]:
    return [one.key(i, size) for i in range(one.length // size)]


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (sequence([1, 2, 3, 4, 5, 6]), 3),
        (sequence([1, 2, 3, 4, 9, 6]), 2),
        (sequence([1, 2, 9, 4, 5, 6]), 1),
        (sequence([9, 2, 3, 4, 5, 6]), 0),
        (sequence([1, 2, 3, 4, 5, 6], root=b"int8"), 0),
        (sequence([1, 2, 3, 4, 5, 6], Media(2, 1, b"p")), 1),
        (sequence([1, 2, 3, 4, 5, 6], Media(3, 3, b"p")), 1),
    ],
)
def test_keys_are_equal_up_to_the_first_difference(other: Sequence, equal: int) -> None:
    ours, theirs = keys(sequence([1, 2, 3, 4, 5, 6]), 2), keys(other, 2)
    same = [a == b for a, b in zip(ours, theirs, strict=True)]
    assert same == [True] * equal + [False] * (3 - equal)


@pytest.mark.parametrize(
    "media",
    [
        (Media(1, 4, b"changed"),),
        (Media(1, 3, b"p"),),
        (Media(0, 4, b"p"),),
        (Media(1, 2, b"p"), Media(3, 2, b"p")),
        (),
    ],
)
def test_a_picture_changed_moved_or_cut_is_another_key(media: tuple[Media, ...]) -> None:
    ours = keys(sequence([7] * 6, Media(1, 4, b"p")), 2)
    theirs = keys(sequence([7] * 6, *media), 2)
    assert all(a != b for a, b in zip(ours, theirs, strict=True))


def test_keys_do_not_depend_on_when_they_are_asked_for() -> None:
    pick = random.Random(3)
    tokens = [pick.randrange(9) for _ in range(40)]
    grown = sequence(tokens[:5])
    for token in tokens[5:]:
        grown.tokens.append(token)
        grown.key(grown.length // 4 - 1, 4)
    assert keys(grown, 4) == keys(sequence(tokens), 4)
