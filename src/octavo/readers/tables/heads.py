"""Headings over several columns that no rule shows: each stands over the middle of its own."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import replace

from octavo.readers.tables.columns import Columns, Piece

#: The middles of headings and of their columns differ by at most this many ems, after the
#: shift that they share (numbers set to the right stand beside the middle of their column).
_OFF = 1.0
#: The largest shift that they may share, in ems.
_SHIFT = 2.5
#: More columns than this are not tried.
_MOST = 14


def shared_out(
    pieces: Sequence[Piece],
    below: Sequence[Piece],
    leaves: Sequence[Piece],
    columns: Columns,
    em: float,
) -> list[Piece]:
    """Give out all columns but those of the labels among the headings of a line.

    Args:
        pieces: the line, each in a column of its own; returned as they are where it is not one
            of headings over several columns.
        below: the next line of the header, with more headings.
        leaves: the last line of the header, with a heading in every column.
    """
    heads = [piece for piece in pieces if piece.first > 0]
    full = sorted({at for leaf in leaves for at in range(leaf.first, leaf.last + 1) if at > 0})
    under = [piece for piece in below if piece.first > 0]
    cols = len(columns)
    if not 2 <= len(heads) < len(under) or full != list(range(1, cols)) or cols > _MOST:
        return list(pieces)
    middles = [(piece.chunk.left + piece.chunk.right) / 2 for piece in heads]
    best: tuple[float, tuple[int, ...]] | None = None
    for cuts in itertools.combinations(range(2, cols), len(heads) - 1):
        bounds = (1, *cuts, cols)
        offs = [
            middle - (columns.extents[a][0] + columns.extents[b - 1][1]) / 2
            for middle, (a, b) in zip(middles, itertools.pairwise(bounds), strict=True)
        ]
        shift = statistics.mean(offs)
        off = max(abs(one - shift) for one in offs)
        if abs(shift) < _SHIFT * em and off < _OFF * em and (best is None or off < best[0]):
            best = off, bounds
    if best is None:
        return list(pieces)
    out = [piece for piece in pieces if piece.first == 0]
    for piece, (a, b) in zip(heads, itertools.pairwise(best[1]), strict=True):
        out.append(replace(piece, first=a, last=b - 1))
    return out
