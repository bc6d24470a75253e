"""An answer in pieces while it is made."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from octavo.models.family import Guard
from octavo.requests import Completion

_PARTIAL = "\ufffd"  # a character whose bytes are not all there yet
_LONGEST_WAIT = 32  # tokens; after so many it is no character that is yet to be whole


class Text:
    """The text of tokens as they come: only the last few are decoded for each new one.

    Args:
        decode: tokens to text; what it writes for some of them may depend on those just before.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._before: list[int] = []
        self._new: list[int] = []
        self.text = ""

    def add(self, token: int) -> str:
        """All text so far, without a character of which bytes are to come."""
        self._new.append(token)
        known = self._decode(self._before)
        both = self._decode([*self._before, *self._new])
        whole = not both.endswith(_PARTIAL) or len(self._new) > _LONGEST_WAIT
        if len(both) > len(known) and whole:
            self.text += both[len(known) :]
            self._before, self._new = self._new, []
        return self.text


def pieces(
    answer: Callable[[Guard], Completion],
    decode: Callable[[Sequence[int]], str],
    stop: Sequence[str] = (),
) -> Iterator[str]:
    """Text as it comes; ends the computation when the caller stops asking.

    Args:
        stop: strings that end the answer; text that may begin one is held back.
        answer: computes the completion in a thread of its own, telling its guard of each token.

    Raises:
        OctavoError: the completion's failure.
    """
    told: queue.SimpleQueue[int | Completion | BaseException] = queue.SimpleQueue()
    abandoned = threading.Event()
    guard = Guard(token=told.put, cancelled=abandoned.is_set)

    def work() -> None:
        try:
            told.put(answer(guard))
        # Whatever it is, the caller waits to be told.
        except BaseException as error:  # noqa: BLE001
            told.put(error)

    worker = threading.Thread(target=work, name="octavo-answer")
    worker.start()
    held = max((len(words) - 1 for words in stop), default=0)
    shown = ""
    so_far = Text(decode)
    try:
        while not isinstance(item := told.get(), Completion):
            if isinstance(item, BaseException):
                raise item
            text = so_far.add(item)
            ends = [text.find(words) for words in stop if words in text]
            sure = text[: min(ends)] if ends else text[: max(len(text) - held, 0)]
            if len(sure) > len(shown) and sure.startswith(shown):
                yield sure[len(shown) :]
                shown = sure
    finally:
        abandoned.set()
        worker.join()
    if item.check().text.startswith(shown):
        yield item.text[len(shown) :]
