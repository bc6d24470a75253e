"""Running heads, running feet and page numbers of a single page, told by their place and look.

Rows at the edge of a page collect points for what running heads have in common and lose points
for what body text has. Repetition over pages is a matter of ``readers.finish``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from octavo.media.page import Ruling
from octavo.readers.blocks import on_one_row
from octavo.readers.lines import Line
from octavo.readers.regions import Region, best
from octavo.types import Box, Category, union_all

_NUMBER = re.compile(
    r"^[\[(|–—\-~•·\s]*(\d{1,4}|[ivxlc]{1,7}|[A-Z]{1,2}[-.]?\d{1,4}|\d{1,3}[-./]\d{1,4}"
    r"|(page|seite|p\.?|pp\.?|pág\.?|стр\.?)\s*\d{1,4}(\s*(of|/|von|de|sur)\s*\d{1,4})?"
    r"|\d{1,4}\s*(of|/|von|de|sur)\s*\d{1,4})[\])|–—\-~•·.\s]*$",
    re.IGNORECASE,
)
_PAGE_OF = re.compile(r"\b(page|seite)\s+\d+|\b\d+\s+of\s+\d+\b", re.IGNORECASE)
_IMPRINT = re.compile(
    r"https?://|www\.|\bdoi\b|©|\(c\)\s|copyright|all rights reserved|\bvol(ume)?\b\.?\s*\d|"
    r"\bissue\b|\bno\.\s*\d|\bissn\b|\bisbn\b|arxiv:|et al\.?|\bpreprint\b|\bjournal\b|"
    r"proceedings|confidential|downloaded|\brevised\b|\brev\.|\bchapter\s+\d|"
    r"\b\d{1,2}[./]\d{1,2}[./]\d{2,4}\b|"
    r"\b(january|february|march|april|may|june|july|august|september|october|november|december)"
    r"\s+(\d{1,2}(\s?[-–]\s?\d{1,2})?,?\s+)?\d{4}",
    re.IGNORECASE,
)
_END = re.compile(r"[.!?;:,]['\"”’)]*$")
_DIGIT = re.compile(r"\d")
# The opening of a letter or memorandum, which stands where a running head would.
_LETTER = re.compile(r"^(to|from|date|re|subject|dear|attn|attention|cc)\b\s*[:.;]?", re.IGNORECASE)
_NOTE = re.compile(
    r"^([*†‡§¶]|\(?\d{1,3}[).]?\s|[a-z]\s|(notes?|sources?)\b\s*[:.])", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Furniture:
    """Lines that are not the page's own text, with the category of each."""

    lines: tuple[tuple[Line, Category], ...]


def is_page_number(text: str) -> bool:
    return bool(_NUMBER.match(text.strip()))


@dataclass(frozen=True, slots=True)
class _Row:
    lines: tuple[Line, ...]
    box: Box

    @property
    def text(self) -> str:
        return "  ".join(line.text for line in self.lines)


def _rows(lines: Sequence[Line]) -> list[_Row]:
    rows: list[list[Line]] = []
    for line in sorted(lines, key=lambda x: x.box.center[1]):
        if rows and all(on_one_row(x.box, line.box) for x in rows[-1]):
            rows[-1].append(line)
            continue
        rows.append([line])
    return [
        _Row(tuple(sorted(row, key=lambda x: x.box.left)), union_all(x.box for x in row))
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class PageFrame:
    """What the rows of a page are measured against."""

    page: Box
    text: Box
    body: float
    leading: float
    rulings: Sequence[Ruling]
    regions: Sequence[Region]
    crowded: bool
    full: bool


def find_furniture(
    lines: Sequence[Line],
    page: Box,
    body: float,
    *,
    solid: Sequence[Box] = (),
    rulings: Sequence[Ruling] = (),
    regions: Sequence[Region] = (),
) -> Furniture:
    """The running heads and feet among ``lines``.

    Args:
        page: the whole page. body: font size of most of the text.
        solid: tables and pictures; text beyond them is not at the edge of the page.
        rulings, regions: further evidence.
    """
    rows = _rows(lines)
    if not rows:
        return Furniture(())
    frame = PageFrame(
        page,
        union_all(row.box for row in rows),
        body,
        1.25 * body,
        [r for r in rulings if r.horizontal],
        regions,
        len(rows) >= 6,
        len(rows) >= 28,
    )
    found: list[tuple[Line, Category]] = []
    for top, category in ((True, Category.PAGE_HEADER), (False, Category.PAGE_FOOTER)):
        for row in _edge(rows, solid, frame, top):
            found += [(line, category) for line in row.lines]
    taken = {id(line) for line, _ in found}
    rest = [line for line in lines if id(line) not in taken]
    found += _marginal(rest, frame)
    return Furniture(tuple(found))


def _edge(rows: list[_Row], solid: Sequence[Box], frame: PageFrame, top: bool) -> list[_Row]:
    """The rows of furniture at one edge: the longest run of clusters that each pass."""
    ordered = rows if top else rows[::-1]
    accepted = 0
    index = 0
    while index < min(len(ordered), 6):
        end = index + 1
        # Rows set closely belong to one head or foot and are judged together.
        while (
            end < len(ordered) and end - index < 3 and _near(ordered[end - 1], ordered[end], frame)
        ):
            end += 1
        passed = 0
        for size in range(end - index, 0, -1):
            cluster = ordered[index : index + size]
            beyond = ordered[index + size] if index + size < len(ordered) else None
            least = 3.0 if index == 0 else 4.5
            if _is_furniture(cluster, beyond, solid, frame, top, least):
                passed = size
                break
        if not passed:
            break
        index += passed
        accepted = index
    return ordered[:accepted] if accepted < len(ordered) else _only_numbers(ordered)


def _only_numbers(rows: list[_Row]) -> list[_Row]:
    """A page is never all furniture; a lone page number is."""
    return [row for row in rows if is_page_number(row.text)] if len(rows) > 1 else []


def _near(a: _Row, b: _Row, frame: PageFrame) -> bool:
    gap = -a.box.overlap_y(b.box)
    return gap < 0.6 * frame.leading


def _is_furniture(
    cluster: list[_Row],
    beyond: _Row | None,
    solid: Sequence[Box],
    frame: PageFrame,
    top: bool,
    least: float,
) -> bool:
    box = union_all(row.box for row in cluster)
    # On a photo the paper does not fill the picture: the text itself marks its edge.
    margin = 0.08 * frame.page.height
    first = max(frame.page.top, frame.text.top - margin)
    last = min(frame.page.bottom, frame.text.bottom + margin)
    depth = box.bottom - first if top else last - box.top
    limit = 0.16 if frame.crowded else 0.12
    if depth > limit * frame.page.height + 0.02 * frame.page.height * len(cluster):
        return False
    if any(
        (s.top < box.top) if top else (s.bottom > box.bottom) for s in solid if s.overlap_x(box) > 0
    ):
        return False
    return _points(cluster, box, beyond, solid, frame, top) >= least


def _points(
    cluster: list[_Row],
    box: Box,
    beyond: _Row | None,
    solid: Sequence[Box],
    frame: PageFrame,
    top: bool,
) -> float:
    text = " ".join(row.text for row in cluster).strip()
    lines = [line for row in cluster for line in row.lines]
    points = _look(cluster, lines, text, frame)
    label = "header" if top else "footer"
    seen = best(frame.regions, box, [label]) > 0.4 or any(
        r.label == label and r.score > 0.4 and r.box.covered_by(box.expand(2)) > 0.6
        for r in frame.regions
    )
    named = seen or bool(_IMPRINT.search(text) or _DIGIT.search(text))
    # A letterhead stands where a running head would, but over a page that is not full.
    points += 2.0 * seen - (0.0 if named else 0.5 if frame.full else 1.5)
    points -= 2.0 * (best(frame.regions, box, ["title"]) > 0.6)
    points += _isolation(box, beyond, solid, frame, top)
    points += _ruled_off(box, frame, top)
    edge = box.top - frame.page.top if top else frame.page.bottom - box.bottom
    points += 1.0 * (edge < 0.055 * frame.page.height) - 1.0 * (edge > 0.1 * frame.page.height)
    printed = _IMPRINT.search(text) and max(_widest_gap(row) for row in cluster) > 1.5 * frame.body
    if not top and _NOTE.match(text) and not is_page_number(text) and not printed:
        points -= 2.0 if text[0] in "*†‡§¶" or text[0].isdigit() else 3.0
    return points - 0.5 * (len(cluster) - 1)


def _look(cluster: list[_Row], lines: list[Line], text: str, frame: PageFrame) -> float:
    """Points for what the words and letters are like."""
    points = 0.0
    sizes = sorted(line.font_size for line in lines)
    size = sizes[len(sizes) // 2]
    if all(is_page_number(line.text) for line in lines):
        return 4.5 if size < 1.6 * frame.body else 2.5
    ends = [line.text for row in cluster for line in (row.lines[0], row.lines[-1])]
    parts = text.split()
    first, last = parts[0], parts[-1]
    if any(is_page_number(end) for end in ends) or _PAGE_OF.search(text):
        points += 2.5
    elif len(cluster) == 1 and (is_page_number(first) or is_page_number(last)):
        points += 1.5 if len(text) < 90 else 0.5
    points += 1.0 * (size < 0.94 * frame.body)
    if size > 1.18 * frame.body:
        points -= 2.0
    letters = [c for c in text if c.isalpha()]
    capitals = bool(letters) and sum(c.isupper() for c in letters) > 0.8 * len(letters)
    points += 1.0 * (capitals or all(line.italic for line in lines))
    points -= 4.0 * bool(_LETTER.match(text))
    points -= 1.0 * (all(line.bold for line in lines) and size > 0.97 * frame.body)
    points += 1.0 * bool(_IMPRINT.search(text))
    widest = max(_widest_gap(row) for row in cluster)
    spread = widest > 7 * frame.body
    points += 1.5 * spread
    wide = max(row.box.width for row in cluster) > 0.72 * frame.text.width
    body_like = abs(size - frame.body) < 0.06 * frame.body and not capitals
    if wide and widest < 1.5 * frame.body and body_like:
        points -= 2.0
    if text[0].islower():
        points -= 1.5
    if _END.search(text) and len(text) > 40 and not _IMPRINT.search(text):
        points -= 1.5
    return points


def _widest_gap(row: _Row) -> float:
    words = sorted((w.box for line in row.lines for w in line.words), key=lambda box: box.left)
    return max((b.left - a.right for a, b in pairwise(words)), default=0.0)


def _isolation(
    box: Box, beyond: _Row | None, solid: Sequence[Box], frame: PageFrame, top: bool
) -> float:
    """Points for the white room between the row and the rest of the page."""
    inner = [s.top - box.bottom if top else box.top - s.bottom for s in solid]
    if beyond is not None:
        inner.append(beyond.box.top - box.bottom if top else box.top - beyond.box.bottom)
    gap = min((g for g in inner if g > -frame.body), default=0.0)
    if not frame.crowded:
        if gap > 6 * frame.leading:
            return 2.0
        # Word processors set the head into the upper half inch and the text below the inch.
        edge = box.top - frame.page.top if top else frame.page.bottom - box.bottom
        upright = frame.page.height > frame.page.width
        return 3.0 if upright and edge < 0.05 * frame.page.height and gap > frame.leading else 0.0
    if gap > 1.9 * frame.leading:
        return 2.0
    return 1.0 if gap > 0.75 * frame.leading else 0.0 if gap > 0.4 * frame.leading else -1.0


def _ruled_off(box: Box, frame: PageFrame, top: bool) -> float:
    for rule in frame.rulings:
        y = rule.box.center[1]
        near = (
            0 <= y - box.bottom < 1.6 * frame.body if top else 0 <= box.top - y < 1.6 * frame.body
        )
        if near and rule.box.width > 0.5 * frame.text.width:
            return 1.5
    return 0.0


def _marginal(lines: list[Line], frame: PageFrame) -> list[tuple[Line, Category]]:
    """Line numbers and stamps in the outer margins, level ones."""
    numbers = [
        line
        for line in lines
        if line.text.strip().isdigit()
        and (
            line.box.right < frame.text.left + 2.5 * frame.body
            or line.box.left > frame.text.right - 2.5 * frame.body
        )
    ]
    if len(numbers) < 5:
        return []
    values = [int(line.text) for line in sorted(numbers, key=lambda x: x.box.top)]
    steps = {b - a for a, b in pairwise(values)}
    if len(steps) > 2 or not steps <= {1, 2, 5, 10}:
        return []
    return [(line, Category.PAGE_HEADER) for line in numbers]
