"""The KV cache of one model: blocks in two slabs whose size is known before they are made.

Full blocks lie in one pool, quantized if wanted; the newest tokens of each sequence lie exact in
another (with ``exact`` there is one pool for both). What a sequence takes follows from its length
alone: :class:`~octavo.engine.kv_layout.KvSizes`.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch

from octavo.engine.kv_extent import KvPool, KvStore
from octavo.engine.kv_layer import KvLayer
from octavo.engine.kv_layout import BlockLayout, KvShape, KvSizes
from octavo.engine.kv_sequence import KvSequence
from octavo.errors import BudgetExceeded
from octavo.memory.ledger import Ledger, Place

__all__ = ["KvSequence", "KvShape", "KvSizes", "PagedKV"]


class PagedKV:
    """Args:
        ledger: counts the slabs as ``kv`` in ``place``.
        sizes: of blocks: model, precision, block size, recent window.
        budget: bytes of all slabs together.
        sequences: that can be in it at once; their tails are set aside.
        max_length: tokens that one sequence may have; None: as many as fit
            (``kv_cache_max_length``).
        store: of lower tiers, for what the slabs do not hold; not closed with this.
        device, place: where the slabs lie.

    Raises:
        BudgetExceeded: the ledger has no room, or ``budget`` holds no token.
    """

    def __init__(
        self,
        ledger: Ledger,
        sizes: KvSizes,
        *,
        budget: int,
        sequences: int = 1,
        max_length: int | None = None,
        store: KvStore | None = None,
        device: torch.device | str = "cpu",
        place: Place = "device",
    ) -> None:
        self.sizes = sizes
        self.max_length = max_length
        self.store = store
        self.device = torch.device(device)
        full, exact = sizes.split(budget, sequences)
        self._pools: list[KvPool] = []

        def pool(name: str, layout: BlockLayout, blocks: int) -> KvPool:
            made = KvPool(
                ledger,
                name=name,
                nbytes=layout.nbytes,
                blocks=blocks,
                device=self.device,
                place=place,
            )
            self._pools.append(made)
            return made

        try:
            if sizes.precision == "exact":
                self.exact = self.full = pool("kv", sizes.exact, exact)
            else:
                self.exact = pool("kv tails", sizes.exact, exact)
                self.full = pool("kv", sizes.full, full)
        except BaseException:
            self.close()
            raise

    @property
    def nbytes(self) -> int:
        """Of the slabs, as the ledger counts them."""
        return sum(pool.stats().nbytes for pool in self._pools)

    def sequence(self, owner: str) -> KvSequence:
        """A new, empty sequence.

        Args:
            owner: for refusals, leaks and stores.
        """
        layers = [
            KvLayer(self.sizes, layer, self.full, self.exact, owner)
            for layer in range(self.sizes.shape.layers)
        ]
        return KvSequence(self, owner, layers)

    def free_tokens(self) -> int:
        """Tokens by which a sequence without windows can grow, all layers alike."""
        layers = self.sizes.shape.layers
        return self.full.stats().free_blocks // layers * self.sizes.block_tokens

    def check_length(self, tokens: int, owner: str) -> None:
        """
        Raises:
            BudgetExceeded: a sequence may not be so long.
        """
        if self.max_length is not None and tokens > self.max_length:
            raise BudgetExceeded(
                f"{tokens} tokens, {self.max_length} are allowed",
                where=owner,
                next_step="shorten the prompt or the answer, or raise kv_cache_max_length",
            )

    def refusal(self, sequence: KvSequence, tokens: int) -> BudgetExceeded:
        """The error that says why a sequence cannot grow."""
        full, exact = self.full.stats(), self.exact.stats()
        return BudgetExceeded(
            f"{tokens} tokens more than {sequence.length} do not fit: {full.free_blocks} full "
            f"blocks of {full.limit_blocks} and {exact.free_blocks} exact ones of "
            f"{exact.limit_blocks} are free",
            where=sequence.owner,
            next_step="release sequences, use int8 or int4, or give the KV cache more memory",
        )

    def close(self) -> None:
        """Gives the slabs back; sequences cannot be used any more. Harmless when repeated."""
        for pool in self._pools:
            pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
