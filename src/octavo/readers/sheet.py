"""A page while it is read, and how one that was set sideways is turned."""

from __future__ import annotations

from dataclasses import dataclass, field

from octavo.media.page import Page, Pixels, TextLayer, Word
from octavo.media.turn import turn, turn_box, turned_size
from octavo.readers.lines import Line
from octavo.readers.regions import Region
from octavo.readers.scan import Scan
from octavo.types import Attempt, TextSource


@dataclass(slots=True)
class Sheet:
    """A page on its way: what has been found so far.

    ``width``, ``height`` and everything found are in units of the page as it has been turned.
    """

    page: Page
    layer: TextLayer
    look: Pixels
    scale: float
    timings: dict[str, float]
    width: float = 0.0
    height: float = 0.0
    rotation: int = 0
    skew: float = 0.0
    source: TextSource = TextSource.TEXT_LAYER
    reason: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    lines: list[Line] | None = None
    regions: list[Region] = field(default_factory=list)
    scan: Scan | None = None


def main_turn(words: list[Word]) -> int:
    """Degrees clockwise that level most of the letters: pages set sideways without /Rotate."""
    weight = {0: 0, 90: 0, 180: 0, 270: 0}
    for word in words:
        weight[round(word.angle / 90) * 90 % 360] += len(word.text)
    angle = max(weight, key=lambda key: weight[key])
    return angle if weight[angle] > 0.6 * sum(weight.values()) else 0


def turn_sheet(sheet: Sheet, rotation: int) -> None:
    """Turn a page with a text layer clockwise, words, drawings and picture alike."""

    def level(word: Word) -> Word:
        box = turn_box(word.box, sheet.width, sheet.height, rotation)
        angle = (word.angle - rotation) % 360
        return Word(
            word.text,
            box,
            box.bottom - 0.2 * box.height,
            word.font_size,
            word.font,
            word.bold,
            word.italic,
            word.mono,
            angle if angle <= 180 else angle - 360,
            word.confidence,
            word.invisible,
            word.broken,
        )

    turned = [level(word) for word in sheet.words]
    layer = sheet.layer
    sheet.layer = TextLayer(
        words=tuple(turned),
        images=tuple(turn_box(b, sheet.width, sheet.height, rotation) for b in layer.images),
        shapes=tuple(turn_box(b, sheet.width, sheet.height, rotation) for b in layer.shapes),
    )
    sheet.words = turned
    sheet.look = turn(sheet.look, rotation, 0.0)
    sheet.width, sheet.height = turned_size(sheet.width, sheet.height, rotation)
    sheet.rotation = rotation
