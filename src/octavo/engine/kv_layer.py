"""Keys and values of one layer of one sequence: full blocks in extents, then exact tail blocks.

Shapes: ``h`` heads, ``t`` tokens, ``n`` blocks, ``s`` tokens of a block, ``d`` channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from octavo.engine.kv_codes import encode
from octavo.engine.kv_extent import Extent, give, index_of, rows_of, take, write_rows
from octavo.engine.kv_layout import BlockLayout, KvSizes
from octavo.errors import ReleasedError
from octavo.memory.pools import BlockPool, Blocks


@dataclass(frozen=True, slots=True)
class Tile:
    """Some blocks of a layer that attention reads at once.

    Attributes:
        layout: of the blocks.
        rows_nb: the blocks, one in each row.
        position: of the first token of the first block.
        start, end: positions of the tokens that count; others in the blocks do not.
    """

    layout: BlockLayout
    rows_nb: torch.Tensor
    position: int
    start: int
    end: int


class KvLayer:
    """Args:
    sizes: of blocks; ``layer``: its number.
    full, exact: pools of full blocks and of tail blocks; one and the same when all is exact.
    owner: for refusals and stores.
    """

    def __init__(
        self, sizes: KvSizes, layer: int, full: BlockPool, exact: BlockPool, owner: str
    ) -> None:
        self.sizes, self.layer, self.owner = sizes, layer, owner
        self._full, self._exact = full, exact
        self.extents: list[Extent] = []
        self.tail: list[Blocks] = []
        self._spare_full: list[Blocks] = []
        self._spare_exact: list[Blocks] = []
        self.first = 0
        self.length = 0
        self._closed = False

    @property
    def encoded(self) -> int:
        """Position of the first token that is not in an extent."""
        return self.first + sum(extent.count for extent in self.extents) * self.sizes.block_tokens

    def needs(self, tokens: int) -> tuple[int, int]:
        """Full and exact blocks to take before ``tokens`` more can be appended."""
        n, after = self.sizes.block_tokens, self.length + tokens
        first, encoded = self.sizes.spans(self.layer, after)
        start = max(first, self.encoded)
        full = max(encoded - start, 0) // n
        exact = -(-(after - encoded) // n)
        full -= sum(self._leaving(first))
        if self._full is self._exact:
            # Full blocks are tail blocks that were filled.
            return 0, max(full + exact - len(self.tail), 0)
        return max(full, 0), max(exact - len(self.tail), 0)

    def reserve(self, tokens: int) -> None:
        """Takes the blocks for ``tokens`` more, so that appending them cannot fail.

        Raises:
            BudgetExceeded: there are not so many; nothing has changed.
        """
        self._check_open()
        full, exact = self.needs(tokens)
        more_full = take(self._full, max(full - len(self._spare_full), 0), self.owner)
        try:
            more_exact = take(self._exact, max(exact - len(self._spare_exact), 0), self.owner)
        except BaseException:
            give(more_full)
            raise
        self._spare_full += more_full
        self._spare_exact += more_exact

    def unreserve(self) -> None:
        """Gives back what was reserved and is not used."""
        give(self._spare_full)
        give(self._spare_exact)
        self._spare_full, self._spare_exact = [], []

    def append(self, keys_htd: torch.Tensor, values_htd: torch.Tensor) -> None:
        """Adds tokens: those that are no longer recent are encoded at once, from what is given.

        Raises:
            BudgetExceeded: there is no room; nothing has changed.
        """
        tokens = keys_htd.shape[1]
        self.reserve(tokens)
        n, before, after = self.sizes.block_tokens, self.length, self.length + tokens
        first, encoded = self.sizes.spans(self.layer, after)
        # The block that was begun is filled first: it may be encoded in the next step.
        filled = min(-(-before // n) * n, after)
        self.length = after
        self._write_tail(before, keys_htd, values_htd, before, filled)
        self._forget(first)
        self._encode_tail(encoded)
        new = max(filled, self.encoded)
        whole = max(encoded - new, 0)
        if whole:
            self._encode_new(keys_htd, values_htd, new - before, whole)
        self._write_tail(before, keys_htd, values_htd, new + whole, after)
        self.unreserve()

    def tiles(self, start: int) -> Iterator[Tile]:
        """All tokens from position ``start`` on, oldest first."""
        self._check_open()
        n, position = self.sizes.block_tokens, self.first
        for extent in self.extents:
            end = position + extent.count * n
            if end > start:
                yield Tile(self.sizes.full, extent.rows(), position, max(start, position), end)
            position = end
        if self.length > max(start, position):
            rows_nb = rows_of(self._exact, self.tail)
            yield Tile(self.sizes.exact, rows_nb, position, max(start, position), self.length)

    def tail_rows(self) -> torch.Tensor:
        """The tail blocks, one in each row."""
        return rows_of(self._exact, self.tail)

    def set_tail(self, rows_nb: torch.Tensor) -> None:
        """Takes blocks for a tail that was put away, and copies it into them.

        Raises:
            BudgetExceeded: there are not so many; nothing has changed.
        """
        blocks = take(self._exact, rows_nb.shape[0], self.owner)
        write_rows(self._exact, blocks, rows_nb)
        self.tail = blocks

    def fork(self, tokens: int, owner: str) -> KvLayer:
        """Another layer that begins with the same ``tokens``; whole blocks are shared.

        Args:
            tokens: at the end of an extent's block, or the length.

        Raises:
            BudgetExceeded: the tail, which is copied, finds no room.
        """
        other = KvLayer(self.sizes, self.layer, self._full, self._exact, owner)
        other.first = self.first
        position, n = self.first, self.sizes.block_tokens
        try:
            for extent in self.extents:
                count = min(extent.count, (tokens - position) // n)
                if count <= 0:
                    break
                other.extents.append(_shared(extent, count, self._shares(extent)))
                position += count * n
            if tokens > position:
                count = -(-(tokens - position) // n)
                other.tail = take(self._exact, count, owner)
                write_rows(self._exact, other.tail, rows_of(self._exact, self.tail[:count]))
        except BaseException:
            other.release()
            raise
        other.length = tokens
        return other

    def release(self) -> None:
        """Gives everything back. Harmless when repeated."""
        self.unreserve()
        give(self.tail)
        for extent in self.extents:
            extent.release()
        self.tail, self.extents, self._closed = [], [], True

    def _closes(self, extent: Extent) -> bool:
        """Whether an extent gets no more blocks."""
        return (
            extent is not self.extents[-1]
            or extent.count >= self.sizes.tile_blocks
            or extent.written
        )

    def _shares(self, extent: Extent) -> bool:
        """Whether another layer can hold it too; behind a window blocks go one by one."""
        return self._closes(extent) and self.sizes.shape.window(self.layer) is None

    def _write_tail(
        self,
        before: int,
        keys_htd: torch.Tensor,
        values_htd: torch.Tensor,
        start: int,
        end: int,
    ) -> None:
        """Copies the tokens at positions ``start`` to ``end`` into tail blocks."""
        n, layout, base = self.sizes.block_tokens, self.sizes.exact, self.encoded
        tensor = self._exact.tensor
        while start < end:
            number, at = divmod(start - base, n)
            if number == len(self.tail):
                self.tail.append(self._fresh())
            index = self.tail[number].indices[0]
            row = tensor[index : index + 1]
            count = min(n - at, end - start)
            chunk = slice(start - before, start - before + count)
            layout.view(row, "keys")[0, :, at : at + count] = keys_htd[:, chunk]
            layout.view(row, "values")[0, :, at : at + count] = values_htd[:, chunk]
            start += count

    def _fresh(self) -> Blocks:
        """A tail block; what is not written yet must be finite, as it is multiplied by zero."""
        block = self._spare_exact.pop(0)
        self._exact.tensor[block.indices[0]].zero_()
        return block

    def _leaving(self, first: int) -> Iterator[int]:
        """For each extent, its blocks before ``first`` that can be used again at once."""
        position, n = self.first, self.sizes.block_tokens
        for extent in self.extents:
            if position >= first:
                return
            yield extent.reusable(min(extent.count, (first - position) // n))
            position += extent.count * n

    def _forget(self, first: int) -> None:
        """Lets go of blocks that lie before ``first`` and that no window reaches."""
        n = self.sizes.block_tokens
        while self.extents and self.first < first:
            extent = self.extents[0]
            count = min(extent.count, (first - self.first) // n)
            if count == extent.count:
                self.extents.pop(0)
            elif not extent.alone:
                # Others read it, or the store holds it whole: it goes when all of it may.
                return
            self._spares().extend(extent.pop(count))
            self.first += count * n
        if self.extents:
            return
        while self.tail and self.first < first:
            self._reuse(self.tail.pop(0))
            self.first += n
        if not self.tail:
            self.first = max(self.first, first)

    def _spares(self) -> list[Blocks]:
        return self._spare_exact if self._full is self._exact else self._spare_full

    def _encode_tail(self, encoded: int) -> None:
        """Turns tail blocks before ``encoded`` into full blocks."""
        while self.tail and self.encoded < encoded:
            block = self.tail.pop(0)
            if self._full is self._exact:
                self._add(block)
                continue
            layout = self.sizes.exact
            row = rows_of(self._exact, [block])
            target = self._spare_full.pop(0)
            encode(
                self.sizes.full,
                layout.view(row, "keys"),
                layout.view(row, "values"),
                rows_of(self._full, [target]),
            )
            self._add(target)
            self._reuse(block)

    def _encode_new(
        self, keys_htd: torch.Tensor, values_htd: torch.Tensor, start: int, tokens: int
    ) -> None:
        """Encodes whole blocks of new tokens, one tile at a time."""
        n = self.sizes.block_tokens
        while tokens:
            count = min(tokens // n, self.sizes.tile_blocks)
            chunk = slice(start, start + count * n)
            blocks = [self._spares().pop(0) for _ in range(count)]
            index = index_of(self._full, blocks)
            rows_nb = rows_of(self._full, blocks, index)
            encode(
                self.sizes.full,
                keys_htd[:, chunk].unflatten(1, (count, n)).transpose(0, 1),
                values_htd[:, chunk].unflatten(1, (count, n)).transpose(0, 1),
                rows_nb,
            )
            if not isinstance(index, slice):
                # What was encoded into is a copy.
                self._full.tensor[index] = rows_nb
            for block in blocks:
                self._add(block)
            start += count * n
            tokens -= count * n

    def _add(self, block: Blocks) -> None:
        if not self.extents or self._closes(self.extents[-1]):
            self.extents.append(Extent(self._full, self.owner))
        self.extents[-1].add(block)

    def _reuse(self, block: Blocks) -> None:
        self._spare_exact.append(block)

    def _check_open(self) -> None:
        if self._closed:
            raise ReleasedError(
                "this sequence was released", where=self.owner, next_step="begin a new one"
            )


def _shared(extent: Extent, count: int, closed: bool) -> Extent:
    if closed and count == extent.count:
        extent.holders += 1
        return extent
    other = Extent(extent.pool, extent.owner)
    if extent.resident:
        for block in extent.blocks[:count]:
            other.add(block.share())
        return other
    rows_nb = extent.rows()[:count]
    blocks = take(extent.pool, count, extent.owner)
    write_rows(extent.pool, blocks, rows_nb)
    for block in blocks:
        other.add(block)
    return other
