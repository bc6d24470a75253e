"""What an eviction policy is: bookkeeping of keys and sizes, no tensors and no threads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator
from typing import ClassVar

Key = Hashable


class Policy(ABC):
    """Who goes next from a tier of ``capacity`` bytes.

    The owner tells what happens (:meth:`insert`, :meth:`touch`, :meth:`evict`, :meth:`remove`)
    and asks for :meth:`victims`; the policy never drops a key by itself, because the owner may
    have to keep it (in use, or its eviction failed). Not safe for threads: the owner locks.
    """

    name: ClassVar[str]

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity

    @abstractmethod
    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:
        """``key`` has come into the tier after it was asked for, or with a new value.

        Args:
            key: one that is not in the tier, or whose size or cost has changed.
            nbytes: what it takes in the tier.
            cost: of making the value again, in any unit that is the same for all keys.
        """

    @abstractmethod
    def touch(self, key: Key) -> None:
        """``key``, in the tier, was used."""

    @abstractmethod
    def evict(self, key: Key) -> None:
        """``key`` has left the tier to make room. The policy may remember that it was there."""

    @abstractmethod
    def remove(self, key: Key) -> None:
        """``key`` is gone for good: forget it wholly. A key never seen is fine."""

    @abstractmethod
    def victims(self) -> Iterator[Key]:
        """The keys in the tier, who should go first first. Changes nothing.

        Lazy: an owner that needs room takes only the first few; it does not change the policy
        while it iterates.
        """

    def admits(self, key: Key, nbytes: int, cost: float = 1.0) -> bool:  # noqa: ARG002
        """Whether ``key``, just read, is worth the room of those it would push out."""
        return True

    @abstractmethod
    def __contains__(self, key: object) -> bool: ...

    @abstractmethod
    def __len__(self) -> int: ...
