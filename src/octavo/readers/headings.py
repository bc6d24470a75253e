"""How much speaks for a block being a heading: its type, its words, its place.

Each kind of evidence is a sum of small weights, tuned on pages whose headings are known
(``benchmarks/documents``). One point is enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from octavo.readers.blocks import MARKER, Block, Style
from octavo.readers.regions import best

FAMILIAR = re.compile(
    r"^(?:[\dIVX.]+\s+)?(abstract|summary|introduction|background|methods?|results|discussion|"
    r"conclusions?|references|bibliography|acknowledge?ments?|appendix|contents|table of contents|"
    r"related work|preface|foreword|index|glossary|zusammenfassung|einleitung|résumé)\W*$",
    re.IGNORECASE,
)
NUMBERED = re.compile(
    r"^(?:(?:chapter|section|part|appendix|article)\s+[\dIVXA-Z]+\b|"
    r"(?:[A-Z]\.)?\d{1,2}(?:\.\d{1,2}){0,4}\.?(?=\s)|[IVX]{1,5}\.(?=\s)|[A-Z]\.(?=\s))",
    re.IGNORECASE,
)
WORD = re.compile(r"[^\W\d_]{2,}")
_SECTION = re.compile(r"^(?:[A-Z]\.)?\d{1,2}(?:\.\d{1,2}){1,4}\.?\s+[^\W\d_a-z]")
_DEPTH = re.compile(r"^(?:[A-Z]\.)?(\d{1,2}(?:\.\d{1,2})*)")
_UNFINISHED = re.compile(r"(?:[,;:–-]|\b(?:and|or|the|of|a|an|in|to|for|with|by))$", re.IGNORECASE)
_STOPPED = re.compile(r"[.;,]$")
_ABBREVIATED = re.compile(r"\b[A-Z]\.$|\betc\.$")
_BULLETS = "•‣◦▪■□●○◆◇–—*·-\uf0b7"
_MOST_LINES, _MOST_LETTERS = 4, 220


@dataclass(frozen=True, slots=True)
class _Look:
    """What the kinds of evidence share.

    ``ratio`` is the font size over that of the body text; ``fill`` the share of its column that
    the first line takes; ``model`` the score of a heading seen there by the layout model.
    """

    block: Block
    text: str
    style: Style
    ratio: float
    fill: float
    single: bool
    capitals: bool
    numbered: bool
    model: float


def number_depth(text: str) -> int | None:
    """The depth that a section number tells: 1 for "2", 3 for "2.1.3"."""
    match = _DEPTH.match(text)
    return match.group(1).strip(".").count(".") + 1 if match else None


def heading_points(block: Block, after: Block | None, style: Style) -> float:
    """Evidence that ``block`` is a heading of what comes ``after`` it; 1 is enough."""
    text = block.text
    marked = MARKER.match(text)
    if marked and marked["marker"][0] in _BULLETS:
        return 0.0
    if not WORD.search(text) or len(block.lines) > _MOST_LINES or block.letters > _MOST_LETTERS:
        return 0.0
    look = _look(block, text, style)
    return _by_type(look) + _by_words(look) + _by_place(look, after)


def _look(block: Block, text: str, style: Style) -> _Look:
    letters = [c for c in text if c.isalpha()]
    capitals = sum(c.isupper() for c in letters) > 0.9 * len(letters) and len(letters) > 3
    ratio = block.font_size / style.body
    if capitals and not style.measured:
        ratio *= 1.2  # OCR measures boxes, and a line of capitals has a low one
    return _Look(
        block=block,
        text=text,
        style=style,
        ratio=ratio,
        fill=block.lines[0].box.width / max(block.column.width, 1.0),
        single=len(block.lines) == 1,
        capitals=capitals,
        numbered=bool(NUMBERED.match(text)),
        model=best(style.regions, block.box, ["title"]),
    )


def _by_type(look: _Look) -> float:
    """Size, weight, slope and capitals."""
    block, ratio = look.block, look.ratio
    points = 0.6 * look.capitals + 0.2 * (block.italic and look.single)
    if look.style.measured:
        points += min(max((ratio - 1.04) * 8, 0.0), 1.6)
        points += (1.0 if look.single and look.fill < 0.8 else 0.75) * block.bold
        points -= 2.0 * (ratio < 0.86 or (ratio < 0.95 and not block.bold and not look.model))
    else:
        points += min(max((ratio - 1.12) * 4, 0.0), 1.2) + 0.6 * block.bold
        points -= 1.0 * (ratio < 0.85)
    if len(block.lines) > 2 and ratio < 1.15:
        points -= 0.5
    return points


def _by_words(look: _Look) -> float:
    """Section numbers and familiar names; what reads like a part of a sentence, and figures."""
    text = look.text
    points = (0.95 if look.single else 0.2) * bool(_SECTION.match(text))
    points += 0.6 * bool(FAMILIAR.match(text))
    points += 0.35 * (look.numbered and not text.endswith("."))
    points -= 0.8 * text[0].islower()
    if _STOPPED.search(text) and not _ABBREVIATED.search(text):
        points -= 0.4 if look.numbered and look.single else 0.9
    points -= 0.4 * (text.endswith(":") and look.ratio < 1.1)
    points -= 0.5 * bool(_UNFINISHED.search(text))
    if text.count(",") >= 2 and look.ratio < 1.3:
        points -= 0.6  # names, places, keywords
    digits = sum(c.isdigit() for c in text)
    points -= 0.8 * (digits > 0.4 * len(text.replace(" ", "")))
    return points


def _by_place(look: _Look, after: Block | None) -> float:
    """The layout model's word, the room around it, and what follows."""
    block = look.block
    prose = best(look.style.regions, block.box, ["text"], 0.8)
    points = 0.9 * (look.model > 0.5)
    points -= 0.3 * (prose > 0.85 and not block.bold and not look.model)
    points += 0.2 * _centred(block)
    points -= 0.4 * (look.single and look.fill > 0.93 and look.ratio < 1.1)
    if after is not None and block.font_size > 1.1 * after.font_size:
        points += 0.3
    if (after is None or after.text[0].islower()) and look.ratio < 1.15:
        points -= 0.5
    return points


def _centred(block: Block) -> bool:
    box, column = block.box, block.column
    return (
        abs(box.center[0] - column.center[0]) < 0.03 * column.width
        and box.width < 0.8 * column.width
    )
