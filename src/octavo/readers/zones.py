"""Reading order: a recursive XY-cut that looks for columns first.

At every step the set of items is cut at column gutters; where something spans them, the set is
cut into horizontal slabs, and neighbouring slabs stay together as long as they share a gutter
(so a column is read to its foot, and a head over all columns goes before them). What no straight
cut divides is sorted by the two rules of Breuel, "High performance document layout analysis"
(SDIUT 2003).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from octavo.types import Box, union_all

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """Something that has a place in the order.

    ``text`` is empty for things that are not a line (a table, a picture).
    """

    box: Box
    text: str
    value: T


@dataclass(frozen=True, slots=True)
class Zone(Generic[T]):
    """Items of one column, top to bottom; ``box`` is the room of the column."""

    box: Box
    items: tuple[Item[T], ...]


def order_zones(
    items: Sequence[Item[T]], em: float, *, rtl: bool = False, bars: Sequence[Box] = ()
) -> list[Zone[T]]:
    """Columns in reading order.

    Args:
        items: lines, tables, pictures.
        em: the usual font size, page units.
        rtl: columns run from right to left.
        bars: level rules; one that runs under all columns ends them.
    """
    if not items:
        return []
    zones: list[Zone[T]] = []
    for part in _between_bars(list(items), bars):
        zones += _join_flow(_cut(part, em, rtl, 0))
    return zones


def _between_bars(items: list[Item[T]], bars: Sequence[Box]) -> list[list[Item[T]]]:
    """The items above, between and below the rules that cross the whole text."""
    room = union_all(item.box for item in items)
    heights = [
        bar.center[1]
        for bar in bars
        if bar.overlap_x(room) > 0.85 * room.width
        and not any(_flat(i.box)[0] < bar.center[1] < _flat(i.box)[1] for i in items)
    ]
    parts: dict[int, list[Item[T]]] = {}
    for item in items:
        parts.setdefault(sum(item.box.center[1] > y for y in heights), []).append(item)
    return [parts[key] for key in sorted(parts)]


def _join_flow(zones: list[Zone[T]]) -> list[Zone[T]]:
    """Join zones that follow each other downwards in the same column."""
    out: list[Zone[T]] = []
    for zone in zones:
        if out:
            last = out[-1]
            narrow = min(last.box.width, zone.box.width)
            if (
                last.box.overlap_x(zone.box) > 0.8 * narrow
                and max(last.box.width, zone.box.width) < 1.35 * narrow
                and zone.box.top >= last.items[-1].box.top
            ):
                out[-1] = Zone(last.box.union(zone.box), last.items + zone.items)
                continue
        out.append(zone)
    return out


def _flat(box: Box) -> tuple[float, float]:
    """Top and bottom without the room that lines of tight print share."""
    slack = 0.18 * box.height
    return box.top + slack, box.bottom - slack


def _gutters(items: list[Item[T]], em: float) -> list[float]:
    """The x of every gutter that divides ``items`` into columns."""
    if len(items) < 2:
        return []
    spans = sorted((item.box.left, item.box.right) for item in items)
    cuts: list[float] = []
    edge = spans[0][1]
    for left, right in spans[1:]:
        gap = left - edge
        if gap > 0.3 * em:
            middle = (left + edge) / 2
            low = [item for item in items if item.box.right <= middle]
            high = [item for item in items if item.box.left >= middle]
            if _columns(low, high, gap, em):
                cuts.append(middle)
        edge = max(edge, right)
    return cuts


def _columns(low: list[Item[T]], high: list[Item[T]], gap: float, em: float) -> bool:
    """Whether two sets beside each other are columns, and not the cells of rows."""
    a, b = union_all(i.box for i in low), union_all(i.box for i in high)
    shared = a.overlap_y(b)
    if shared < 0.4 * min(a.height, b.height):
        return False
    lines = [[item for item in side if item.text] for side in (low, high)]
    solid = [
        any(not item.text and item.box.height > 4 * em for item in side) for side in (low, high)
    ]
    if any(not solid[i] and len(_row_tops(lines[i])) < 2 for i in (0, 1)):
        return False
    if gap < 0.9 * em and min(len(_row_tops(lines[i])) for i in (0, 1)) < 4:
        return False
    for i in (0, 1):
        if solid[i]:
            continue
        side, other, box = lines[i], lines[1 - i], (a, b)[i]
        if box.width < 3 * em and _aligned(side, other, em) > 0.6:
            return False
        if _mostly(side, _is_number) and _aligned(side, other, em) > 0.6:
            return False
    return not (
        not any(solid)
        and _mostly(lines[0], lambda text: text.endswith(":"))
        and _aligned(lines[0], lines[1], em) > 0.6
    )


def _row_tops(lines: list[Item[T]]) -> list[float]:
    tops: list[float] = []
    for item in sorted(lines, key=lambda i: i.box.top):
        if not tops or item.box.top - tops[-1] > 0.5 * item.box.height:
            tops.append(item.box.top)
    return tops


def _mostly(lines: list[Item[T]], test: Callable[[str], bool]) -> bool:
    return sum(test(item.text) for item in lines) > 0.6 * len(lines)


def _is_number(text: str) -> bool:
    digits = sum(c.isdigit() for c in text)
    return digits > 0 and sum(c.isalpha() for c in text) <= 0.3 * digits


def _aligned(side: list[Item[T]], other: list[Item[T]], em: float) -> float:
    """The share of lines in ``side`` with a line of ``other`` on the same baseline."""
    bottoms = [item.box.bottom for item in other]
    hits = sum(any(abs(item.box.bottom - y) < 0.35 * em for y in bottoms) for item in side)
    return hits / len(side) if side else 0.0


def _slabs(items: list[Item[T]]) -> list[list[Item[T]]]:
    """Groups with free room between them from edge to edge."""
    ordered = sorted(items, key=lambda item: _flat(item.box)[0])
    slabs: list[list[Item[T]]] = []
    edge = float("-inf")
    for item in ordered:
        top, bottom = _flat(item.box)
        if top >= edge:
            slabs.append([])
        slabs[-1].append(item)
        edge = max(edge, bottom)
    return slabs


def _cut(items: list[Item[T]], em: float, rtl: bool, depth: int) -> list[Zone[T]]:
    if len(items) == 1 or depth > 24:
        return [_leaf(items)]
    cuts = _gutters(items, em)
    if cuts:
        return _split_columns(items, cuts, em, rtl, depth)
    slabs = _slabs(items)
    if len(slabs) == 1:
        return _plain(items, em)
    room = union_all(item.box for item in items).width
    out: list[Zone[T]] = []
    flow: list[Item[T]] = []
    at = 0
    while at < len(slabs):
        end = at if _ends_paragraph(flow, slabs[at], em) else _column_run(slabs, at, room, em)
        if end == at:
            flow += slabs[at]
            at += 1
            continue
        if flow:
            out += _plain(flow, em)
            flow = []
        run = [item for slab in slabs[at:end] for item in slab]
        out += _split_columns(run, _gutters(run, em), em, rtl, depth)
        at = end
    return out + (_plain(flow, em) if flow else [])


def _ends_paragraph(flow: list[Item[T]], slab: list[Item[T]], em: float) -> bool:
    """A short line right under a line over the columns is its end, not the top of a column."""
    if not flow or len(slab) != 1 or not slab[0].text:
        return False
    last, line = flow[-1].box, slab[0].box
    return line.top - last.bottom < 0.5 * em and -0.5 * em < line.left - last.left < 3 * em


def _column_run(slabs: list[list[Item[T]]], at: int, room: float, em: float) -> int:
    """The end of the longest run of slabs from ``at`` that shares a gutter; ``at`` if none does."""
    run: list[Item[T]] = []
    end = at
    for k in range(at, len(slabs)):
        run += slabs[k]
        if _projected_gap(run) > 0.3 * em:
            if _gutters(run, em):
                end = k + 1
        elif union_all(item.box for item in run).width > 0.6 * room:
            break
    return end


def _projected_gap(items: list[Item[T]]) -> float:
    """The widest strip that no item reaches into, between the outermost ones."""
    widest, edge = 0.0, float("inf")
    for left, right in sorted((item.box.left, item.box.right) for item in items):
        widest = max(widest, left - edge)
        edge = right if edge == float("inf") else max(edge, right)
    return widest


def _plain(flow: list[Item[T]], em: float) -> list[Zone[T]]:
    """Slabs without columns, read downwards; what lies across each other is untangled."""
    out: list[Zone[T]] = []
    run: list[Item[T]] = []
    for slab in _slabs(flow):
        if len(slab) == 1 or _one_row(slab):
            run += slab
            continue
        if run:
            out.append(_leaf(run))
            run = []
        out += [_leaf(part) for part in _breuel(slab, em)]
    return out + ([_leaf(run)] if run else [])


def _one_row(group: list[Item[T]]) -> bool:
    first = group[0].box
    return all(
        i.text and i.box.overlap_y(first) > 0.5 * min(i.box.height, first.height) for i in group
    )


def _split_columns(
    items: list[Item[T]], cuts: list[float], em: float, rtl: bool, depth: int
) -> list[Zone[T]]:
    columns: list[list[Item[T]]] = [[] for _ in range(len(cuts) + 1)]
    for item in items:
        columns[sum(item.box.center[0] > x for x in cuts)].append(item)
    if rtl:
        columns.reverse()
    return [zone for column in columns if column for zone in _cut(column, em, rtl, depth + 1)]


def _leaf(items: list[Item[T]]) -> Zone[T]:
    ordered = sorted(items, key=lambda item: (item.box.top, item.box.left))
    return Zone(union_all(item.box for item in items), tuple(ordered))


def _breuel(items: list[Item[T]], em: float) -> list[list[Item[T]]]:
    """Topological order of items that no straight cut divides, one run of a column each."""
    count = len(items)
    if count > 400:
        return [items]

    def above(a: Box, b: Box) -> bool:
        return a.overlap_x(b) > 0.1 * em and a.center[1] < b.center[1]

    def left_of(i: int, j: int) -> bool:
        a, b = items[i].box, items[j].box
        if a.right > b.left + 0.3 * em:
            return False
        top, bottom = sorted((a.center[1], b.center[1]))
        return not any(
            top < c.box.center[1] < bottom
            and c.box.overlap_x(a) > 0.1 * em
            and c.box.overlap_x(b) > 0.1 * em
            for k, c in enumerate(items)
            if k not in (i, j)
        )

    before: list[set[int]] = [set() for _ in items]
    for j in range(count):
        for i in range(count):
            if i != j and (above(items[i].box, items[j].box) or left_of(i, j)):
                before[j].add(i)
    out: list[list[Item[T]]] = []
    done: set[int] = set()
    while len(done) < count:
        ready = [k for k in range(count) if k not in done and before[k] <= done]
        # Two rules can contradict each other in a ring; then the topmost goes first.
        pool = ready or [k for k in range(count) if k not in done]
        follow = [k for k in ready if out and above(out[-1][-1].box, items[k].box)]
        k = min(follow or pool, key=lambda n: (items[n].box.top, items[n].box.left))
        if out and k in follow and _same_column(out[-1][-1].box, items[k].box):
            out[-1].append(items[k])
        else:
            out.append([items[k]])
        done.add(k)
    return out


def _same_column(a: Box, b: Box) -> bool:
    return a.overlap_x(b) > 0.6 * min(a.width, b.width)
