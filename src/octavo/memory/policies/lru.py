"""Least recently used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import ClassVar

from octavo.memory.policies.base import Key, Policy


class LRU(Policy):
    """The key that was not used for the longest time goes first. Every operation is O(1).

    The worst choice for a cyclic scan that is larger than the tier: each key goes just before it
    is used again.
    """

    name: ClassVar[str] = "lru"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._order: OrderedDict[Key, None] = OrderedDict()

    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:  # noqa: ARG002
        self._order[key] = None
        self._order.move_to_end(key)

    def touch(self, key: Key) -> None:
        self._order.move_to_end(key)

    def evict(self, key: Key) -> None:
        del self._order[key]

    def remove(self, key: Key) -> None:
        self._order.pop(key, None)

    def victims(self) -> Iterator[Key]:
        return iter(self._order)

    def __contains__(self, key: object) -> bool:
        return key in self._order

    def __len__(self) -> int:
        return len(self._order)
