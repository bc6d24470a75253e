"""Rules: the straight lines of a table, cleaned of doubles, underlines and gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octavo.media.page import Pixels, Ruling, Word
from octavo.types import Box

#: Strokes of one direction closer than this, in ems, are one line (double rules, cell borders
#: drawn by both neighbours).
SAME_LINE = 0.3
#: Strokes on one line with a smaller gap, in ems, are one stroke (dashes, borders cell by cell).
BRIDGE = 0.3
#: A filled bar thicker than this, in ems, is a background: its edges are the lines.
BAR = 0.6
#: Shortest line looked for in pixels, inches.
SHORTEST_INCH = 0.25


@dataclass(frozen=True, slots=True)
class Rule:
    """A line at ``at`` (y when level, x when upright) from ``start`` to ``end``."""

    at: float
    start: float
    end: float

    @property
    def length(self) -> float:
        return self.end - self.start

    def covers(self, start: float, end: float) -> float:
        """The share of ``start``..``end`` that the line runs along, 0 to 1."""
        shared = min(self.end, end) - max(self.start, start)
        return max(shared, 0.0) / max(end - start, 1e-6)


@dataclass(frozen=True, slots=True)
class Level:
    """All level rules at one height."""

    at: float
    rules: tuple[Rule, ...]

    def covers(self, start: float, end: float) -> float:
        return min(sum(rule.covers(start, end) for rule in self.rules), 1.0)


def rules_of(
    rulings: Sequence[Ruling], words: Sequence[Word], em: float
) -> tuple[list[Rule], list[Rule]]:
    """Level and upright rules in page units, underlines left out, strokes of one line joined."""
    level: list[Rule] = []
    upright: list[Rule] = []
    for ruling in rulings:
        box = ruling.box
        if ruling.horizontal:
            ats = _edges(box.top, box.bottom, em)
            level += [Rule(at, box.left, box.right) for at in ats]
        else:
            ats = _edges(box.left, box.right, em)
            upright += [Rule(at, box.top, box.bottom) for at in ats]
    level = [rule for rule in _joined(level, em) if rule.length > 0.8 * em]
    upright = [rule for rule in _joined(upright, em) if rule.length > 0.5 * em]
    return _without_underlines(level, words), upright


def _edges(low: float, high: float, em: float) -> tuple[float, ...]:
    return (low, high) if high - low > BAR * em else ((low + high) / 2,)


def _joined(rules: list[Rule], em: float) -> list[Rule]:
    """Join strokes that lie on one line and touch, nearly touch or overlap."""
    out: list[Rule] = []
    for group in _by_position(rules, SAME_LINE * em):
        group.sort(key=lambda rule: rule.start)
        at = sum(r.at * r.length for r in group) / max(sum(r.length for r in group), 1e-6)
        start, end = group[0].start, group[0].end
        for rule in group[1:]:
            if rule.start - end > BRIDGE * em:
                out.append(Rule(at, start, end))
                start, end = rule.start, rule.end
            end = max(end, rule.end)
        out.append(Rule(at, start, end))
    return out


def _by_position(rules: list[Rule], near: float) -> list[list[Rule]]:
    groups: list[list[Rule]] = []
    for rule in sorted(rules, key=lambda r: r.at):
        if groups and rule.at - groups[-1][0].at <= near:
            groups[-1].append(rule)
        else:
            groups.append([rule])
    return groups


def _without_underlines(rules: list[Rule], words: Sequence[Word]) -> list[Rule]:
    """Drop the lines that run just below the baselines of words for most of their length."""
    if not rules or not words:
        return rules
    boxes = np.array([[w.box.left, w.box.top, w.box.right, w.box.bottom] for w in words])
    bases = np.array([w.baseline for w in words])
    sizes = np.array([w.font_size for w in words])
    out = []
    for rule in rules:
        inside = (bases - 0.1 * sizes < rule.at) & (rule.at < bases + 0.19 * sizes)
        left = np.maximum(boxes[inside, 0], rule.start)
        right = np.minimum(boxes[inside, 2], rule.end)
        if float(np.clip(right - left, 0, None).sum()) < 0.6 * rule.length:
            out.append(rule)
    return out


def levels_of(rules: Sequence[Rule], em: float) -> list[Level]:
    """Level rules grouped by height, top to bottom."""
    return [
        Level(sum(r.at for r in group) / len(group), tuple(sorted(group, key=lambda r: r.start)))
        for group in _by_position(list(rules), SAME_LINE * em)
    ]


def rulings_from_pixels(pixels: Pixels, scale: float) -> tuple[Ruling, ...]:
    """Find the lines of a picture by morphological opening.

    Args:
        pixels: height × width × 3, RGB.
        scale: pixels a page unit; boxes come back in page units.

    The shortest line found is a quarter of an inch at the resolution that a page of this many
    pixels has if it is 8 inches wide. Strokes of letters are shorter, pictures give lines that
    ``find_tables`` throws away because no words lie between them.
    """
    import cv2

    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    shortest = max(int(max(gray.shape) / 11 * SHORTEST_INCH), 20)
    # The block must be wider than any line and narrower than a cell, so that both thin lines on
    # a coloured background and the edge of that background stand out.
    block = max(shortest // 2 * 2 + 1, 15)
    ink = cv2.adaptiveThreshold(
        gray, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY_INV, block, 12
    )
    found: list[Ruling] = []
    for horizontal in (True, False):
        size = (shortest, 1) if horizontal else (1, shortest)
        # One pixel of thickness is added first: a line that is not quite level is a staircase.
        thick = cv2.dilate(ink, np.ones((2, 1) if horizontal else (1, 2), np.uint8))
        opened = cv2.morphologyEx(
            thick, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_RECT, size)
        )
        _, _, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
        for left, top, width, height, _ in stats[1:].tolist():
            along, across = (width, height) if horizontal else (height, width)
            if along < shortest or across > max(along / 8, 3) or across > shortest / 2:
                continue
            box = Box(left, top, left + width, top + height).scale(1 / scale)
            found.append(Ruling(box, horizontal))
    return tuple(found)
