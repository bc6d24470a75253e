"""An answer in pieces."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from octavo.errors import OctavoError
from octavo.models.family import Guard
from octavo.models.streamed import pieces
from octavo.requests import Completion, Finish
from octavo.types import Failure

_WORDS = "Grüße aus Köln, stop here"


def _decode(tokens: Sequence[int]) -> str:
    return bytes(tokens).decode("utf-8", errors="replace")


def _answer(guard: Guard, text: str = _WORDS, final: str | None = None) -> Completion:
    for byte in text.encode():
        if guard.cancelled():
            break
        guard.token(byte)
    return Completion("r", text=text if final is None else final)


def test_pieces_make_the_text_and_never_half_a_character() -> None:
    found = list(pieces(_answer, _decode))
    assert "".join(found) == _WORDS
    assert len(found) > 10
    assert not any("\ufffd" in piece for piece in found)


def test_nothing_of_a_stop_string_is_shown() -> None:
    final = _WORDS[: _WORDS.index("stop")]
    found = list(pieces(lambda guard: _answer(guard, final=final), _decode, ("stop",)))
    assert "".join(found) == final


def test_a_failure_comes_after_what_there_was() -> None:
    def fail(guard: Guard) -> Completion:
        guard.token(65)
        return Completion("r", finish=Finish.ERROR, failure=Failure("X", "broke", "mend it"))

    found: list[str] = []
    with pytest.raises(OctavoError, match="broke"):
        found.extend(pieces(fail, _decode))
    assert found == ["A"]


def test_a_caller_who_leaves_ends_the_work() -> None:
    seen = threading.Event()

    def endless(guard: Guard) -> Completion:
        while not guard.cancelled():
            guard.token(65)
        seen.set()
        return Completion("r")

    answer = pieces(endless, _decode)
    assert next(answer) == "A"
    answer.close()
    assert seen.wait(5)
    assert all(thread.name != "octavo-answer" for thread in threading.enumerate())
