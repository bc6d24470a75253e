"""A pinned set for cyclic scans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from octavo.memory.policies.base import Key, Policy


class PinnedSet(Policy):
    """Keeps what came first; who comes when the tier is full is not admitted.

    A scan that goes round and round over N bytes in a tier of C hits C/N this way, which is what
    Belady's choice with bypass hits; LRU hits nothing. A key that is removed, or taken by the
    owner, makes room for the next that is asked for.

    Args:
        capacity: bytes of the tier.
        scan: the keys of one round with their bytes, in their order, where it is known. Then the
            set is chosen ahead and spread evenly over the round, so that the keys between can be
            fetched while pinned ones are used; other keys get only the room that it leaves.

    Where an owner has to let go of a key after all, the one that came last goes first, and a key
    of the chosen set after all others. Every operation is O(1).
    """

    name: ClassVar[str] = "pinned"

    def __init__(self, capacity: int, scan: Sequence[tuple[Key, int]] = ()) -> None:
        super().__init__(capacity)
        self._chosen = evenly_spread(scan, capacity)
        self._awaited = sum(self._chosen.values())  # bytes of chosen keys that are not here
        self._pinned: dict[Key, int] = {}
        self._others: dict[Key, int] = {}
        self._held = 0

    def admits(self, key: Key, nbytes: int, cost: float = 1.0) -> bool:  # noqa: ARG002
        if key in self._chosen:
            return True
        return self._held + self._awaited + nbytes <= self.capacity

    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:  # noqa: ARG002
        home = self._pinned if key in self._chosen else self._others
        if key in home:
            self._held -= home[key]
        elif key in self._chosen:
            self._awaited -= self._chosen[key]
        home[key] = nbytes
        self._held += nbytes

    def touch(self, key: Key) -> None:
        if key not in self:
            raise KeyError(key)

    def evict(self, key: Key) -> None:
        if not self._leave(key):
            raise KeyError(key)

    def remove(self, key: Key) -> None:
        self._leave(key)
        self._awaited -= self._chosen.pop(key, 0)

    def victims(self) -> Iterator[Key]:
        yield from reversed(self._others)
        yield from reversed(self._pinned)

    def _leave(self, key: Key) -> bool:
        if key in self._pinned:
            self._held -= self._pinned.pop(key)
            self._awaited += self._chosen[key]
        elif key in self._others:
            self._held -= self._others.pop(key)
        else:
            return False
        return True

    def __contains__(self, key: object) -> bool:
        return key in self._pinned or key in self._others

    def __len__(self) -> int:
        return len(self._pinned) + len(self._others)


def evenly_spread(scan: Sequence[tuple[Key, int]], capacity: int) -> dict[Key, int]:
    """Keys of a round, with their bytes, that fit ``capacity`` and lie evenly over the round.

    The bytes chosen follow the bytes passed in proportion; what then still fits is added in
    order.
    """
    sizes = dict(scan)
    # Twice: a capacity that whole values cannot fill would leave the last gap too wide.
    fill = sum(_in_proportion(sizes, capacity).values())
    chosen = _in_proportion(sizes, fill)
    held = sum(chosen.values())
    for key, nbytes in sizes.items():
        if key not in chosen and held + nbytes <= capacity:
            chosen[key] = nbytes
            held += nbytes
    return chosen


def _in_proportion(sizes: Mapping[Key, int], fill: int) -> dict[Key, int]:
    """Keys in order, each as soon as the share of ``fill`` passed so far has room for it."""
    total = sum(sizes.values())
    chosen: dict[Key, int] = {}
    held = passed = 0
    for key, nbytes in sizes.items():
        passed += nbytes
        if (held + nbytes) * total <= fill * passed:
            chosen[key] = nbytes
            held += nbytes
    return chosen
