"""Keys and values of one sequence, all layers; lower tiers; sharing of what begins alike."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

import torch

from octavo.engine.kv_extent import Extent, KvStore, give
from octavo.engine.kv_layer import KvLayer
from octavo.errors import BudgetExceeded, ConfigError
from octavo.memory.entry import Terms

if TYPE_CHECKING:
    from octavo.engine.kv import PagedKV
    from octavo.memory.policies.base import Key


class KvSequence:
    """Made by :meth:`PagedKV.sequence`; to be released. For one thread at a time.

    A forward pass appends the same number of tokens to every layer, in order. Between passes all
    layers are equally long.
    """

    def __init__(self, kv: PagedKV, owner: str, layers: list[KvLayer]) -> None:
        self._kv = kv
        self.owner = owner
        self.layers = layers
        self._parked: list[Key | None] | None = None

    @property
    def length(self) -> int:
        """Tokens that every layer has."""
        return self.layers[-1].length

    @property
    def nbytes(self) -> int:
        """Of its blocks in the pools; shared ones count in full."""
        sizes = self._kv.sizes
        full = sum(len(e.blocks) for layer in self.layers for e in layer.extents)
        tail = sum(len(layer.tail) for layer in self.layers)
        return full * sizes.full.nbytes + tail * sizes.exact.nbytes

    def reserve(self, tokens: int) -> None:
        """Takes the blocks of all layers for ``tokens`` more: a pass that was reserved for cannot
        run out of them. What is not used goes back with the next append.

        With a store the oldest blocks are written back to make room; the new tokens themselves
        must find room in the pools.

        Raises:
            BudgetExceeded: there is no room, or the sequence would be longer than allowed;
                the sequence is as before.
            TierFull: nor has the store; the sequence is as before.
        """
        self._kv.check_length(self.length + tokens, self.owner)
        while not self._reserved(tokens):
            if not self.spill_one():
                raise self._kv.refusal(self, tokens)

    def unreserve(self) -> None:
        """Gives back what was reserved and is not used."""
        for layer in self.layers:
            layer.unreserve()

    def append(self, layer: int, keys_htd: torch.Tensor, values_htd: torch.Tensor) -> None:
        """Adds new tokens to one layer, after their own attention was computed.

        Raises:
            BudgetExceeded: there is no room, which cannot be after :meth:`reserve`; nothing has
                changed.
        """
        self.layers[layer].append(keys_htd, values_htd)

    def fork(self, tokens: int | None = None, *, owner: str | None = None) -> KvSequence:
        """Another sequence that begins with the same tokens. Full blocks are shared, not copied.

        Args:
            tokens: a whole number of blocks; all by default.

        Raises:
            ConfigError: that is no whole number of blocks, or windows have passed it.
            BudgetExceeded: there is no room for a copy of the tail.
        """
        tokens = self.length if tokens is None else tokens
        sizes = self._kv.sizes
        if tokens != self.length and (tokens % sizes.block_tokens or tokens > self.length):
            raise ConfigError(
                f"{tokens} of {self.length} tokens are no whole blocks of {sizes.block_tokens}",
                where=self.owner,
                next_step="round down to whole blocks",
            )
        for layer in self.layers:
            if layer.first > sizes.spans(layer.layer, tokens)[0]:
                raise ConfigError(
                    f"layer {layer.layer} has let go of tokens before {layer.first}",
                    where=self.owner,
                    next_step="share all tokens, or compute the prefix again",
                )
        name = owner or self.owner
        made: list[KvLayer] = []
        try:
            made.extend(layer.fork(tokens, name) for layer in self.layers)
        except BaseException:
            for layer in made:
                layer.release()
            raise
        return KvSequence(self._kv, name, made)

    def release(self) -> None:
        """Gives all blocks and all copies in the store back. Harmless when repeated."""
        for layer in self.layers:
            layer.release()
        for key in self._parked or ():
            if key is not None:
                self._store().discard(key)
        self._parked = None

    # Lower tiers.

    def write_back(self) -> int:
        """Copies full extents that are not yet in the store; how many. Each is written once.

        Raises:
            TierFull, BudgetExceeded: the store has no room; all stays readable.
        """
        store, count = self._store(), 0
        for layer in self.layers:
            for extent in layer.extents[:-1]:
                if not extent.written:
                    extent.write(store)
                    count += 1
        return count

    def spill(self) -> int:
        """Writes full extents back and gives their blocks to the pool; how many blocks.

        Raises:
            TierFull, BudgetExceeded: the store has no room; what was not written stays.
        """
        freed = 0
        for layer in self.layers:
            for extent in layer.extents[:-1]:
                freed += _leave(extent, self._store())
        return freed

    @property
    def parked(self) -> bool:
        return self._parked is not None

    def park(self) -> None:
        """Moves everything to the store, so that the sequence takes nothing from the pools.

        Raises:
            TierFull, BudgetExceeded: the store has no room; the sequence can go on as it is.
        """
        if self._parked is not None:
            return
        store = self._store()
        for layer in self.layers:
            # Who shares an extent goes on in the pool.
            layer.extents = [
                extent.apart() if extent.holders > 1 and extent.resident else extent
                for extent in layer.extents
            ]
        keys: list[Key | None] = []
        try:
            keys.extend(_park_tail(layer, store, self.owner) for layer in self.layers)
            for layer in self.layers:
                for extent in layer.extents:
                    extent.write(store)
        except BaseException:
            for key in keys:
                if key is not None:
                    store.discard(key)
            raise
        for layer in self.layers:
            layer.unreserve()
            give(layer.tail)
            layer.tail = []
            for extent in layer.extents:
                extent.leave()
        self._parked = keys

    def resume(self) -> None:
        """Takes the tail out of the store again; full extents stay there and are read from it.

        Raises:
            BudgetExceeded: the pools have no room for it; it stays parked.
        """
        if self._parked is None:
            return
        store = self._store()
        done: list[KvLayer] = []
        try:
            for layer, key in zip(self.layers, self._parked, strict=True):
                if key is not None:
                    layer.set_tail(store[key])
                    done.append(layer)
        except BaseException:
            for layer in done:
                give(layer.tail)
                layer.tail = []
            raise
        for key in self._parked:
            if key is not None:
                store.discard(key)
        self._parked = None

    def restore(self, *, keep: bool = True) -> int:
        """Brings extents back into the pool while there is room; how many blocks.

        Args:
            keep: whether the store keeps its copies.
        """
        entered = 0
        for layer in self.layers:
            for extent in layer.extents:
                if not extent.resident:
                    try:
                        extent.enter(keep=keep)
                    except BudgetExceeded:
                        return entered
                    entered += extent.count
        return entered

    def prefetch(self, layer: int) -> None:
        """Starts fetching what a layer reads from the store; returns at once."""
        if self._kv.store is None or layer >= len(self.layers):
            return
        wanted = [extent.prefetch() for extent in self.layers[layer].extents]
        keys = [key for key in wanted if key is not None]
        if keys:
            self._kv.store.prefetch(keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _reserved(self, tokens: int) -> bool:
        done: list[KvLayer] = []
        try:
            for layer in self.layers:
                layer.reserve(tokens)
                done.append(layer)
        except BudgetExceeded:
            for layer in done:
                layer.unreserve()
            return False
        return True

    def spill_one(self) -> bool:
        """Writes one extent back: the oldest of the layer that holds most blocks, those that are
        still open last. Whether there was one.

        Layers with a window stay, where others have none: their few blocks come and go.

        Raises:
            TierFull, BudgetExceeded: the store has no room; nothing has changed.
        """
        if self._kv.store is None:
            return False
        window = self._kv.sizes.shape.window
        layers = [layer for layer in self.layers if window(layer.layer) is None] or self.layers
        for closed in (True, False):
            found = [[e for e in _in_pool(layer, closed) if e.resident] for layer in layers]
            most = max(found, key=lambda extents: sum(len(e.blocks) for e in extents))
            if most:
                return _leave(most[0], self._kv.store) > 0
        return False

    def _store(self) -> KvStore:
        if self._kv.store is None:
            raise ConfigError(
                "there is no store for keys and values",
                where=self.owner,
                next_step="give PagedKV a store",
            )
        return self._kv.store


def _in_pool(layer: KvLayer, closed: bool) -> list[Extent]:
    return layer.extents[:-1] if closed else layer.extents


def _leave(extent: Extent, store: KvStore) -> int:
    if not extent.resident:
        return 0
    extent.write(store)
    return extent.leave()


def _park_tail(layer: KvLayer, store: KvStore, owner: str) -> Key | None:
    if not layer.tail:
        return None
    # A tail is written under a key of its own for every park: no written block changes.
    key = ("octavo:kv tail", owner, layer.layer, layer.length, id(layer))
    store.put(key, layer.tail_rows().clone(), Terms(kind="kv", owner=owner))
    return key
