"""Clock: second chance."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import ClassVar

from octavo.memory.policies.base import Key, Policy


class Clock(Policy):
    """Keys on a ring; the hand spares those used since it last passed and takes the first other.

    A touch sets one mark, so a hit costs less than in LRU. A key comes in without a mark, just
    behind the hand. Every operation is O(1), an eviction amortized over the touches before it.

    Corbató, "A paging experiment with the Multics system" (1968).
    """

    name: ClassVar[str] = "clock"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        # The ring as a queue that starts under the hand: passing a key moves it to the end.
        self._marked: OrderedDict[Key, bool] = OrderedDict()

    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:  # noqa: ARG002
        self._marked[key] = key in self._marked

    def touch(self, key: Key) -> None:
        if key not in self._marked:
            raise KeyError(key)
        self._marked[key] = True

    def evict(self, key: Key) -> None:
        if key not in self._marked:
            raise KeyError(key)
        marked = self._marked
        under_hand = next(iter(marked))
        while marked[under_hand]:
            marked[under_hand] = False
            marked.move_to_end(under_hand)
            under_hand = next(iter(marked))
        if under_hand != key:  # the owner could not let it go: the hand must not wait for it
            marked.move_to_end(under_hand)
        del marked[key]

    def remove(self, key: Key) -> None:
        self._marked.pop(key, None)

    def victims(self) -> Iterator[Key]:
        yield from (key for key, marked in self._marked.items() if not marked)
        yield from (key for key, marked in self._marked.items() if marked)

    def __contains__(self, key: object) -> bool:
        return key in self._marked

    def __len__(self) -> int:
        return len(self._marked)
