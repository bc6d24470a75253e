"""Block numbers of the KV cache: which are free, which are shared, which are still good.

A block holds the keys and values of a fixed number of tokens. Only numbers live here, never
tensors. A full block has a *key* that names everything its values follow from: all tokens up to
its end and the media among them. Equal keys mean equal values, so sequences that begin alike hold
the same blocks (as in vLLM, Kwon et al. 2023).
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from octavo.errors import BudgetExceeded, ConfigError


def chain(
    previous: bytes, tokens: Sequence[int], media: Iterable[tuple[int, int, bytes]] = ()
) -> bytes:
    """The key of a block: SHA-256 of the key before it, its tokens and its media.

    Args:
        previous: the key of the block before; for the first block, what sets sequences apart
            whose tokens are equal (the revision of the model, the precision of the cache).
        tokens: ids in the block.
        media: for each medium that reaches into the block: where it begins, in tokens from the
            start of the block (negative when it began earlier), how many tokens it takes, and the
            key of its content. Without its length, text that looks like the end of a picture
            could pass for it.
    """
    digest = hashlib.sha256()
    # Lengths stand before what varies, or two different lists could make the same bytes.
    for piece in (previous, array("q", tokens).tobytes()):
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    for offset, length, key in media:
        digest.update(array("q", (offset, length, len(key))).tobytes())
        digest.update(key)
    return digest.digest()


class Blocks:
    """Hands out block numbers from 0 to ``total`` - 1 and counts who holds them.

    A block is held (one holder or more), cached (nobody holds it, its content may be asked for
    again) or free. Cached blocks are handed out again when no free one is left, the one that was
    let go first goes first.

    Args:
        total: blocks that there are.
        size: tokens in a block.
    """

    def __init__(self, total: int, size: int) -> None:
        if total < 1 or size < 1:
            raise ConfigError(
                f"{total} blocks of {size} tokens hold nothing",
                next_step="give at least 1 block of at least 1 token",
            )
        self.total = total
        self.size = size
        self._holders = [0] * total
        self._free = list(reversed(range(total)))
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._keys: dict[int, bytes] = {}
        self._by_key: dict[bytes, int] = {}

    @property
    def available(self) -> int:
        """Blocks that :meth:`take` can still hand out."""
        return len(self._free) + len(self._cached)

    def needed(self, tokens: int) -> int:
        """Blocks that hold ``tokens``."""
        return -(-tokens // self.size)

    def is_held(self, block: int) -> bool:
        return self._holders[block] > 0

    def writable(self, block: int) -> bool:
        """Whether its one holder may write into it: nobody else reads it, now or later."""
        return self._holders[block] == 1 and block not in self._keys

    def take(self) -> int:
        """A block for one holder; what it held before is forgotten.

        Raises:
            BudgetExceeded: all are held.
        """
        if not self.available:
            raise BudgetExceeded(
                f"all {self.total} KV blocks are held", next_step="let go of a sequence first"
            )
        block = self._free.pop() if self._free else self._forget_oldest()
        self._holders[block] = 1
        return block

    def share(self, block: int) -> int:
        """One holder more of a block that is held or cached."""
        self._cached.pop(block, None)
        self._holders[block] += 1
        return block

    def let_go(self, blocks: Iterable[int]) -> None:
        """One holder less of each block, listed in the order of its tokens.

        The last block goes first, because a block is of no use without those before it.
        """
        for block in reversed(tuple(blocks)):
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self._keys:
                self._cached[block] = None
            else:
                self._free.append(block)

    def seal(self, block: int, key: bytes) -> None:
        """From now on the block may be found by its key and is never written again.

        The first block with a key is the one that is found; a later one stays its holder's own.
        """
        if key not in self._by_key and block not in self._keys:
            self._by_key[key] = block
            self._keys[block] = key

    def find(self, key: bytes) -> int | None:
        """The block with this key, whether held or cached."""
        return self._by_key.get(key)

    def forget_cached(self) -> int:
        """Frees every cached block; says how many."""
        count = len(self._cached)
        while self._cached:
            self._free.append(self._forget_oldest())
        return count

    def check(self, tables: Iterable[Iterable[int]]) -> None:
        """Compares the books with the tables of all holders.

        Raises:
            RuntimeError: they disagree, or a block is in two states at once.
        """
        counted = [0] * self.total
        for table in tables:
            for block in table:
                counted[block] += 1
        held = [block for block, holders in enumerate(counted) if holders]
        _same("holders", self._holders, counted)
        _same("states", sorted([*held, *self._free, *self._cached]), list(range(self.total)))
        _same("keys", {key: block for block, key in self._keys.items()}, self._by_key)
        _same("cached without a key", [b for b in self._cached if b not in self._keys], [])
        _same("free with a key", [b for b in self._free if b in self._keys], [])

    def _forget_oldest(self) -> int:
        block, _ = self._cached.popitem(last=False)
        del self._by_key[self._keys.pop(block)]
        return block


def _same(what: str, booked: object, counted: object) -> None:
    if booked != counted:
        raise RuntimeError(f"KV blocks, {what}: {booked} in the books, {counted} counted")
