"""Words set like print, for tests that need to know where everything stands."""

from __future__ import annotations

from octavo.media.page import Word
from octavo.types import Box


def set_line(
    text: str,
    left: float,
    baseline: float,
    *,
    size: float = 10.0,
    bold: bool = False,
    italic: bool = False,
    fill: float | None = None,
) -> list[Word]:
    """Words of one line; letters are half an em wide. ``fill`` justifies to that width."""
    parts = text.split()
    widths = [len(part) * 0.5 * size for part in parts]
    space = 0.28 * size
    if fill is not None and len(parts) > 1:
        space = (fill - sum(widths)) / (len(parts) - 1)
    words, x = [], left
    for part, width in zip(parts, widths, strict=True):
        box = Box(x, baseline - 0.8 * size, x + width, baseline + 0.2 * size)
        words.append(Word(part, box, baseline, size, bold=bold, italic=italic))
        x += width + space
    return words


def set_block(
    lines: list[str],
    left: float,
    top: float,
    *,
    size: float = 10.0,
    leading: float = 1.2,
    width: float | None = None,
    bold: bool = False,
) -> list[Word]:
    """Lines below each other; all but the last are justified when ``width`` is given."""
    words: list[Word] = []
    for i, text in enumerate(lines):
        fill = width if i < len(lines) - 1 else None
        baseline = top + 0.8 * size + i * leading * size
        words += set_line(text, left, baseline, size=size, bold=bold, fill=fill)
    return words


def prose(count: int, words: int = 7, seed: int = 1) -> list[str]:
    """``count`` lines of plausible words, each line different, without hyphens."""
    stock = (
        "the binder folds each printed sheet until its leaves lie in order and sews them through "
        "along a cord with waxed linen thread before gluing boards covered in calf or cloth"
    ).split()
    out, at = [], seed
    for _ in range(count):
        line = []
        for _ in range(words):
            at = (at * 31 + 17) % 1009
            line.append(stock[at % len(stock)])
        out.append(" ".join(line))
    return out
