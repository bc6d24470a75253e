"""Adaptive: follows whichever policy has lately missed least."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final
from zlib import crc32

from octavo.memory.policies.base import Key, Policy
from octavo.memory.policies.cost import CostAware
from octavo.memory.policies.learned import Coming, Learned
from octavo.memory.policies.lru import LRU
from octavo.memory.policies.pinned import PinnedSet
from octavo.memory.policies.shadow import Shadow
from octavo.memory.prediction.reuse import Reuse

#: Keys in the tier of which all are sampled; with more, this many to half of it.
_SAMPLED: Final = 512
#: Sampled uses after which a miss counts half: so many, or this multiple of the keys in the tier.
_HALF_LIFE: Final = 1024
_HALF_LIFE_KEYS: Final = 4
#: Sampled uses before the first comparison, in which the learned policy learns; between two.
_FIRST: Final = 512
_COMPARED: Final = 64
#: How much better another policy must be: this much of what the followed one missed, and of what
#: it would cost to make anew all that is in the tier.
_BETTER: Final = 0.05
_BETTER_CONTENT: Final = 0.01
_HEAVIEST: Final = 1e100


class _Kept:
    """A key in the tier."""

    __slots__ = ("cost", "nbytes", "sampled")

    def __init__(self, nbytes: int, cost: float, sampled: bool) -> None:
        self.nbytes = nbytes
        self.cost = cost
        self.sampled = sampled


class Adaptive(Policy):
    """Plays several policies beside each other and follows the one that missed least lately.

    Each candidate governs a shadow: a tier of keys without values, fed with the same accesses.
    The missed costs of the shadows are summed with decay, without first uses, which all of them
    miss. The real tier then becomes what the followed shadow is: who is not in that goes first,
    after them its own victims, and who comes is admitted if it was. So a change of policy alone
    loses nothing; values go only as others need room.

    The candidates are LRU, cost-aware, pinned and learned. ARC and Clock are not played: on no
    trace of the benchmark were they better than the best of these by a per cent, and each
    candidate costs a part of a microsecond a use.

    Of many keys the candidates see a sample, chosen by a hash of the key, in a shadow smaller in
    proportion; only the followed policy then plays all keys. This is SHARDS (Waldspurger et al.,
    FAST 2015) for the miniature simulations of Waldspurger et al. (ATC 2017); to follow a shadow
    is the "refetching" of Gramacy et al. (NIPS 2002) without the fetches.
    """

    name: ClassVar[str] = "adaptive"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._kept: dict[Key, _Kept] = {}
        #: Who is in the tier but not in the followed shadow, in the order of leaving that.
        self._strangers: dict[Key, None] = {}
        self._reuse = Reuse()
        self._makers: dict[str, Callable[[int], Policy]] = {
            Learned.name: lambda room: Learned(room, self._reuse),
            CostAware.name: CostAware,
            LRU.name: LRU,
            PinnedSet.name: PinnedSet,
        }
        self._shadows = {name: Shadow(make(capacity)) for name, make in self._makers.items()}
        #: One of the shadows, or one of its own that plays all keys.
        self._followed = self._shadows[Learned.name]
        self._follow(self._followed)
        self._used = 0
        #: Cost of making anew all that is in the tier.
        self._content = 0.0
        self._coming = Coming()
        #: One key of ``2 ** _halvings`` is sampled.
        self._halvings = 0
        self._played_capacity = capacity
        self._weight = 1.0
        self._growth = 2 ** (1 / _HALF_LIFE)
        self._uses = 0

    @property
    def following(self) -> str:
        """The name of the policy that governs now."""
        return self._followed.policy.name

    def admits(self, key: Key, nbytes: int, cost: float = 1.0) -> bool:
        known = self._reuse.last_use(key) >= 0
        self._reuse.observe(key, nbytes, cost)
        coming = _Kept(nbytes, cost, self._sampled(key))
        self._play(key, coming, self._weight if known else 0.0)
        admitted = key in self._followed or self._used + nbytes <= self.capacity
        if admitted:
            self._coming.add(key)
        return admitted

    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:
        before = self._kept.get(key)
        if before is not None:
            self._uncount(before)
        self._used += nbytes
        self._content += cost
        self._kept[key] = kept = _Kept(nbytes, cost, self._sampled(key))
        self._resample()
        if not self._coming.discard(key):
            self._reuse.observe(key, nbytes, cost)
            for shadow in self._players(kept.sampled):
                shadow.write(key, nbytes, cost)
        if key in self._followed:
            self._strangers.pop(key, None)
        else:
            self._strangers[key] = None

    def touch(self, key: Key) -> None:
        kept = self._kept[key]
        self._reuse.observe(key, kept.nbytes, kept.cost)
        self._play(key, kept, self._weight)

    def evict(self, key: Key) -> None:
        self._uncount(self._kept.pop(key))
        self._strangers.pop(key, None)
        self._resample()

    def remove(self, key: Key) -> None:
        if key in self._kept:
            self.evict(key)
        self._reuse.forget(key)
        for shadow in self._players(sampled=True):
            shadow.remove(key)
        self._coming.discard(key)

    def victims(self) -> Iterator[Key]:
        yield from self._strangers
        for key in self._followed.policy.victims():
            if key in self._kept and key not in self._strangers:
                yield key

    def _play(self, key: Key, kept: _Kept, weight: float) -> None:
        """Lets the shadows read ``key``; a miss counts ``weight`` times its cost."""
        nbytes, cost = kept.nbytes, kept.cost
        for shadow in self._seeing_sampled if kept.sampled else self._seeing_others:
            shadow.read(key, nbytes, cost, weight)
        if self._strangers and key in self._strangers and key in self._followed:
            del self._strangers[key]
        if kept.sampled:
            self._weight *= self._growth
            self._uses += 1
            if self._uses % _COMPARED == 0 and self._uses >= _FIRST:
                self._compare()

    def _uncount(self, gone: _Kept) -> None:
        self._used -= gone.nbytes
        self._content -= gone.cost

    def _players(self, sampled: bool) -> Sequence[Shadow]:
        """The shadows that see a key."""
        return self._seeing_sampled if sampled else self._seeing_others

    def _follow(self, followed: Shadow) -> None:
        """Makes ``followed`` what the tier becomes."""
        self._followed.told = None
        self._followed = followed
        followed.told = self._estrange
        all_shadows = tuple(self._shadows.values())
        self._seeing_others: tuple[Shadow, ...] = (followed,)
        self._seeing_sampled = all_shadows if followed in all_shadows else (*all_shadows, followed)
        self._strangers = dict.fromkeys(
            key for key in sorted(self._kept, key=self._reuse.last_use) if key not in followed
        )

    def _estrange(self, key: Key) -> None:
        if key in self._kept:
            self._strangers[key] = None

    def _compare(self) -> None:
        """Follows another policy if it has lately done clearly better."""
        if self.capacity != self._played_capacity:
            self._resize()
        shadows = self._shadows
        best = min(shadows, key=lambda name: shadows[name].missed)
        ahead = (shadows[self.following].missed - shadows[best].missed) / self._weight
        content = self._content / 2**self._halvings
        if ahead > _BETTER * shadows[best].missed / self._weight + _BETTER_CONTENT * content:
            self._follow(self._full(best))
        if self._weight > _HEAVIEST:
            for shadow in shadows.values():
                shadow.missed /= self._weight
            self._weight = 1.0
        keys = len(self._kept) >> self._halvings
        self._growth = 2 ** (1 / max(_HALF_LIFE, _HALF_LIFE_KEYS * keys))

    def _full(self, name: str) -> Shadow:
        """A shadow under this policy that plays all keys; with a sample, made of the tier's."""
        if not self._halvings:
            return self._shadows[name]
        full = Shadow(self._makers[name](self.capacity))
        self._fill(full)
        return full

    def _fill(self, shadow: Shadow) -> None:
        """Plays the keys of the tier into an empty shadow, in the order of their last use."""
        for key in sorted(self._kept, key=self._reuse.last_use):
            kept = self._kept[key]
            shadow.write(key, kept.nbytes, kept.cost)

    def _sampled(self, key: Key) -> bool:
        # Not hash(): that of a text differs from run to run. A checksum alone clusters on keys
        # that differ in a digit; Knuth's multiplier spreads them.
        spread = crc32(repr(key).encode()) * 2_654_435_761 & 0xFFFFFFFF
        return not self._halvings or spread >> (32 - self._halvings) == 0

    def _resample(self) -> None:
        """Keeps the bounds of what is remembered and sampled in step with the tier."""
        self._reuse.bound(len(self._kept))
        sampled = len(self._kept) >> self._halvings
        if sampled > _SAMPLED:
            self._halvings += 1
        elif self._halvings and sampled < _SAMPLED // 4:
            self._halvings -= 1
        else:
            return
        for key, kept in self._kept.items():
            kept.sampled = self._sampled(key)
        for name, shadow in self._shadows.items():
            if shadow is self._followed:
                # It goes on with all keys; a copy takes its place in the comparison.
                self._shadows[name] = copy = Shadow(self._makers[name](self.capacity))
                copy.missed = shadow.missed
                self._fill(copy)
            self._shadows[name].keep(self._sampled)
        self._resize()
        self._follow(self._followed)

    def _resize(self) -> None:
        self._played_capacity = self.capacity
        for shadow in self._shadows.values():
            shadow.resize(self.capacity >> self._halvings)
        self._followed.resize(self.capacity)

    def __contains__(self, key: object) -> bool:
        return key in self._kept

    def __len__(self) -> int:
        return len(self._kept)
