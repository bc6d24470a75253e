"""An answer in pieces while it is made."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from octavo.errors import OctavoError
from octavo.models.family import Guard
from octavo.requests import Completion

_PARTIAL = "\ufffd"  # a character whose bytes are not all there yet


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
    told: queue.SimpleQueue[int | Completion] = queue.SimpleQueue()
    abandoned = threading.Event()
    guard = Guard(token=told.put, cancelled=abandoned.is_set)
    worker = threading.Thread(target=lambda: told.put(answer(guard)), name="octavo-answer")
    worker.start()
    held = max((len(words) - 1 for words in stop), default=0)
    shown = ""
    tokens: list[int] = []
    try:
        while not isinstance(item := told.get(), Completion):
            tokens.append(item)
            text = decode(tokens)
            ends = [text.find(words) for words in stop if words in text]
            sure = text[: min(ends)] if ends else text[: len(text) - held]
            if not text.endswith(_PARTIAL) and len(sure) > len(shown) and sure.startswith(shown):
                yield sure[len(shown) :]
                shown = sure
    finally:
        abandoned.set()
        worker.join()
    if item.failure is not None:
        raise OctavoError(item.failure.what, next_step=item.failure.next_step)
    if item.text.startswith(shown):
        yield item.text[len(shown) :]
