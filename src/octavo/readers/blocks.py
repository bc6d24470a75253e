"""Lines of a column to paragraphs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from octavo.media.page import Ruling
from octavo.readers.lines import Line, merge_lines
from octavo.readers.mend import ends_sentence
from octavo.readers.regions import Region
from octavo.readers.zones import Zone
from octavo.types import Box, union_all

_BULLETS = "•‣◦▪■□●○◆◇➢➤✓✔▶►–—*·\uf0b7\uf0a7\uf0d8§"
MARKER = re.compile(
    rf"^(?P<marker>[{_BULLETS}]|-(?=\s)|\(?(?:\d{{1,3}}|[a-zA-Z]|[ivxIVX]{{1,5}})[.)]|"
    r"\[[\w+\-]{1,12}\])(?:\s+|$)(?P<rest>.*)$",
    re.DOTALL,
)
CAPTION = re.compile(
    r"^(fig(ure|\.)?s?|table|tab\.|tabelle|tableau|abb(ildung|\.)|bild|scheme|chart|plate|exhibit|"
    r"graph|map|photo|algorithm|listing|box|图|表|圖|그림|표)\s*\.?\s*(S?\d+|[IVX]+\b|[A-Z]\d*\b)",
    re.IGNORECASE,
)
_HEADED = ("title", "figure_caption", "table_caption")
# The end of an entry in a table of contents: leader dots and a page number.
_LEADER = re.compile(r"(?:\.\s?){4,}\s*[\divxlc]{0,5}$|_{4,}\s*\d{0,5}$")


@dataclass(frozen=True)
class Block:
    """Consecutive lines of one column that belong together."""

    lines: tuple[Line, ...]
    column: Box

    @property
    def box(self) -> Box:
        return union_all(line.box for line in self.lines)

    @property
    def font_size(self) -> float:
        return median(line.font_size for line in self.lines)

    @property
    def letters(self) -> int:
        return sum(line.letters for line in self.lines)

    @property
    def bold(self) -> bool:
        return sum(x.letters for x in self.lines if x.bold) > 0.6 * self.letters

    @property
    def italic(self) -> bool:
        return sum(x.letters for x in self.lines if x.italic) > 0.6 * self.letters

    @property
    def confidence(self) -> float:
        return sum(x.confidence * x.letters for x in self.lines) / max(self.letters, 1)

    @property
    def text(self) -> str:
        return " ".join(line.text for line in self.lines)


@dataclass(frozen=True, slots=True)
class Style:
    """How exactly sizes and weights are known, and what the page shows besides its words.

    ``measured`` is false for OCR: sizes are estimates there, and weight is unknown.
    """

    body: float
    measured: bool
    rulings: tuple[Ruling, ...] = ()
    regions: tuple[Region, ...] = ()


def body_size(lines: Iterable[Line]) -> float:
    """The font size of most letters, page units; 10 when there are none."""
    sizes = sorted((line.font_size, line.letters) for line in lines)
    total = sum(count for _, count in sizes)
    weights: dict[float, int] = {}
    for size, count in sizes:
        weights[round(size * 4) / 4] = weights.get(round(size * 4) / 4, 0) + count
    if not total:
        return 10.0
    size, count = max(weights.items(), key=lambda kv: kv[1])
    if count > 0.35 * total:
        return size
    seen = 0
    for size, count in sizes:
        seen += count
        if seen >= total / 2:
            return size
    return sizes[-1][0]


def on_one_row(a: Box, b: Box) -> bool:
    """Beside each other, and not one above the other in tight print."""
    low, small = min(a.width, b.width), min(a.height, b.height)
    if low < small and -0.6 * small < a.overlap_x(b) < 0.3 * small:
        return a.overlap_y(b) > 0.25 * small  # a raised mark right behind its word
    return a.overlap_y(b) > 0.5 * small and a.overlap_x(b) < min(0.5 * small, 0.5 * low)


def join_rows(zone: Zone[Line]) -> list[Line]:
    """The lines of a column, pieces on one baseline joined."""
    rows: list[list[Line]] = []
    for item in zone.items:
        line = item.value
        if rows and all(on_one_row(x.box, line.box) for x in rows[-1]):
            rows[-1].append(line)
            continue
        rows.append([line])
    joined = [row[0] if len(row) == 1 else merge_lines(row) for row in rows]
    return sorted(joined, key=lambda line: line.baseline)


def split_blocks(lines: Sequence[Line], column: Box, style: Style) -> list[Block]:
    """Cut the lines of one column, top to bottom, into paragraphs."""
    if not lines:
        return []
    leading = _leading(lines, style)
    groups: list[list[Line]] = [[lines[0]]]
    counted = MARKER.match(lines[0].text)
    for i in range(1, len(lines)):
        after = lines[i + 1] if i + 1 < len(lines) else None
        marked = MARKER.match(lines[i].text)
        counts = bool(counted and marked and _next_marker(counted["marker"], marked["marker"]))
        if counts or _breaks(groups[-1], lines[i], after, leading, column, style):
            groups.append([])
            counted = marked or counted
        groups[-1].append(lines[i])
    return [Block(tuple(group), column) for group in groups]


def _size(line: Line, style: Style) -> float:
    """The font size; OCR guesses it line by line, so there what is near the usual is the usual."""
    near = not style.measured and 0.7 < line.font_size / style.body < 1.4
    return style.body if near else line.font_size


def _leading(lines: Sequence[Line], style: Style) -> float:
    """The usual distance of baselines, in em of the upper line."""
    steps = [
        (b.baseline - a.baseline) / _size(a, style)
        for a, b in itertools.pairwise(lines)
        if 0.85 < a.font_size / b.font_size < 1.18 and b.baseline > a.baseline
    ]
    usual = sorted(step for step in steps if step < 2.2)
    return usual[len(usual) // 3] if usual else 1.25


def _breaks(
    group: list[Line],
    line: Line,
    after: Line | None,
    leading: float,
    column: Box,
    style: Style,
) -> bool:
    last = group[-1]
    em = min(last.font_size, line.font_size)
    step = (line.baseline - last.baseline) / max(_size(last, style), _size(line, style))
    unfinished = not ends_sentence(last.text)
    lower = unfinished and line.text[0].islower()
    goes_on = lower or (unfinished and not style.measured and _fills(last, column))
    if step > leading * 1.3 + 0.12 or step > 2.3:
        return True
    ratio = line.font_size / last.font_size
    sure = style.measured or min(line.letters, last.letters) > 15
    slack = 0.12 if style.measured else 0.17 if sure else 0.3
    if CAPTION.match(group[0].text) and not unfinished:
        slack = 0.09  # captions are set only a little smaller than the text below them
    resized = not 1 - slack < ratio < 1 + slack and min(line.letters, last.letters) > 3
    if resized and (style.measured or not lower):
        return True
    weight = not goes_on and line.bold != last.bold and min(line.letters, last.letters) > 3
    if weight and not (last.bold and _continues_run_in(last, column)):
        return True
    if _ruled_between(last, line, style.rulings) or _LEADER.search(last.text):
        return True
    if _heading_edge(last, line, style.regions):
        return True
    if _starts_item(line, group, column, em):
        return True
    if _indented(group, line, after, column, em):
        return True
    if _hangs(group, line, column, em):
        return True
    return _ended_early(group, line, column, em)


def _fills(line: Line, column: Box) -> bool:
    """Nothing but the next word would not have fitted: no heading follows in mid-sentence."""
    return line.box.width > column.width - line.font_size and column.width > 12 * line.font_size


def _continues_run_in(last: Line, column: Box) -> bool:
    """A bold line that fills its column is the beginning of a paragraph, not a heading."""
    return (
        last.box.right > column.right - 1.5 * last.font_size and last.box.width > 0.8 * column.width
    )


def _ruled_between(a: Line, b: Line, rulings: Iterable[Ruling]) -> bool:
    for rule in rulings:
        if (
            rule.horizontal
            and a.baseline + 0.1 * a.font_size < rule.box.center[1] < b.box.top + 0.3 * b.font_size
        ):
            wide = min(a.box.width, b.box.width)
            # An underline belongs to its words; a rule reaches beyond them.
            if (
                rule.box.overlap_x(a.box.union(b.box)) > 0.5 * wide
                and rule.box.width > 1.15 * a.box.width
            ):
                return True
    return False


def _heading_edge(a: Line, b: Line, regions: Iterable[Region]) -> bool:
    """The layout model sees one of the two in a heading or caption, and the other not."""
    for region in regions:
        if region.label in _HEADED and region.score > 0.5 and not b.text[0].islower():
            above, below = a.box.covered_by(region.box) > 0.6, b.box.covered_by(region.box) > 0.6
            if above != below:
                return True
    return False


def _starts_item(line: Line, group: list[Line], column: Box, em: float) -> bool:
    match = MARKER.match(line.text)
    if not match:
        return False
    marker = match["marker"]
    if marker in group[-1].text[1:] and marker in "·•|–—*":
        return False  # the sign separates words of a running line
    if marker[0] in _BULLETS or marker == "-" or marker[0] == "[":
        return True
    if marker.strip("().") in ("1", "a", "A", "i", "I"):
        return ends_sentence(group[-1].text) or line.box.left > column.left + 0.8 * em
    return ends_sentence(group[-1].text) and _short(group[-1], column, 1.5 * em)


def _next_marker(before: str, marker: str) -> bool:
    a, b = before.strip("()."), marker.strip("().")
    if a.isdigit() and b.isdigit():
        return int(b) == int(a) + 1
    return len(a) == len(b) == 1 and ord(b) == ord(a) + 1


def _short(line: Line, column: Box, by: float) -> bool:
    return (line.box.left - column.left if line.rtl else column.right - line.box.right) > by


def _indent(line: Line, column: Box) -> float:
    return column.right - line.box.right if line.rtl else line.box.left - column.left


def _indented(group: list[Line], line: Line, after: Line | None, column: Box, em: float) -> bool:
    """The first line of a paragraph is set in, and the next goes back."""
    step = _indent(line, column) - _indent(group[-1], column)
    if not 0.6 * em < step < 6 * em:
        return False
    if len(group) == 1 and MARKER.match(group[0].text):
        return False
    if _indent(group[-1], column) > _indent(group[0], column) + 0.6 * em:
        return False
    if line.text[0].islower() and not ends_sentence(group[-1].text):
        return False
    if after is None:
        return ends_sentence(group[-1].text)
    back = _indent(line, column) - _indent(after, column)
    if back > 0.5 * em:
        return True
    return ends_sentence(group[-1].text) and _short(group[-1], column, 2 * em)


def _hangs(group: list[Line], line: Line, column: Box, em: float) -> bool:
    """Hanging indents: a line further out than the ones before it begins a new entry."""
    if len(group) < 2:
        return False
    inner = min(_indent(x, column) for x in group[1:])
    return (
        _indent(group[0], column) < inner - 0.6 * em
        and _indent(line, column) < inner - 0.6 * em
        and abs(_indent(line, column) - _indent(group[0], column)) < 0.6 * em
    )


def _ended_early(group: list[Line], line: Line, column: Box, em: float) -> bool:
    """The first word of this line had room on the line before, and was not put there."""
    last = group[-1]
    room = last.box.left - column.left if last.rtl else column.right - last.box.right
    need = line.words[0].box.width + 1.2 * em
    if room < max(need, 0.12 * column.width):
        return False
    if abs(last.box.center[0] - line.box.center[0]) < 0.5 * em and _indent(last, column) > em:
        return False  # centred lines
    if line.text[0].islower():
        # Items of a list whose bullets are unknown end with a semicolon.
        return last.text.endswith(";") and room > max(need, 0.3 * column.width)
    return ends_sentence(last.text) and room > max(need, 0.15 * column.width)
