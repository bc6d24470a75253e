"""Where the pictures of a page are: placed images, drawings, and what the layout model sees."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.media.page import TextLayer, Word
from octavo.readers.compose import Picture
from octavo.readers.lines import Line, build_lines
from octavo.readers.regions import Region
from octavo.types import Box, union_all

_SCORE = 0.5
_BACKDROP = 0.6  # a picture over more of the page than this is its background


def find_pictures(
    layer: TextLayer,
    lines: Sequence[Line],
    words: Sequence[Word],
    regions: Sequence[Region],
    page: Box,
    body: float,
) -> list[Picture]:
    """Picture regions, largest first, with the words that stand in them.

    A line belongs to a picture with most of its length: text that only runs into the clear
    margin of an icon stays text.

    Args:
        lines: the level lines of the page. words: all its words, turned ones too.
        body: usual font size; marks smaller than three of it are ornaments.
    """
    prose = [r.box for r in regions if r.label in ("text", "reference") and r.score > 0.6]
    seen: list[tuple[Box, float]] = []
    backdrop = any(image.intersection(page) > 0.7 * page.area for image in layer.images)
    largest = _BACKDROP if backdrop else 0.9
    for region in regions:
        if region.label == "figure" and region.score >= _SCORE:
            box = _fit(region.box, layer, page)
            if box.area < largest * page.area and not _is_prose(box, words, prose):
                seen.append((box, region.score))
    for image in layer.images:
        box = _clip(image, page)
        if min(box.width, box.height) < 3 * body or box.area > _BACKDROP * page.area:
            continue
        if not _is_prose(box, words, prose):
            seen.append((box, 0.9))
    if not layer.words or not any(r.label == "figure" for r in regions):
        seen += [(box, 0.5) for box in _drawings(layer, words, page, body)]
    merged = _merge(seen)
    merged.sort(key=lambda pair: -pair[0].area)
    claimed: set[int] = set()
    out: list[Picture] = []
    for box, score in merged:
        inside = [w for line in lines if _belongs(line, box) for w in line.words]
        inside += [w for w in words if abs(w.angle) >= 15 and box.contains_center(w.box)]
        inside = [w for w in inside if id(w) not in claimed]
        claimed.update(id(w) for w in inside)
        out.append(Picture(box, tuple(inside), score))
    return out


def _belongs(line: Line, box: Box) -> bool:
    return box.contains_center(line.box) and line.box.overlap_x(box) > 0.7 * line.box.width


def _clip(box: Box, page: Box) -> Box:
    left, right = max(box.left, page.left), min(box.right, page.right)
    top, bottom = max(box.top, page.top), min(box.bottom, page.bottom)
    return Box(left, top, max(left, right), max(top, bottom))


def _fit(box: Box, layer: TextLayer, page: Box) -> Box:
    """Grow a seen box to the images and drawings that lie mostly in it."""
    parts = [*layer.images, *layer.shapes]
    own = [p for p in parts if p.area < 0.5 * page.area and p.covered_by(box) > 0.6]
    return _clip(union_all([box, *own]), page)


def _is_prose(box: Box, words: Sequence[Word], prose: Sequence[Box]) -> bool:
    """Running text over a coloured ground or a letterhead is text, not a picture."""
    inside = [w for w in words if box.contains_center(w.box)]
    letters = sum(len(w.text) for w in inside)
    if letters < 120:
        return False
    covered = sum(w.box.area for w in inside) / max(box.area, 1.0)
    in_prose = sum(any(p.contains_center(w.box) for p in prose) for w in inside) / len(inside)
    if covered > 0.35 or in_prose > 0.6:
        return True
    lines = build_lines([w for w in inside if abs(w.angle) < 15])
    full = [line for line in lines if len(line.words) >= 4 or line.letters >= 30]
    return len(full) >= 6 and sum(line.letters for line in full) > 0.6 * letters


def _drawings(layer: TextLayer, words: Sequence[Word], page: Box, body: float) -> list[Box]:
    """Clusters of drawn shapes that look like a figure, for pages without layout regions."""
    if layer.shapes_cut:
        return []
    parts = [
        box
        for box in layer.shapes
        if box.area < 0.5 * page.area and max(box.width, box.height) > 0.3 * body
    ]
    groups = _merge([(box.expand(body), 0.5) for box in parts[:1500]], share=0.0)
    out = []
    for box, _ in groups:
        inner = box.expand(-body)
        members = sum(part.covered_by(box) > 0.9 for part in parts)
        letters = sum(len(w.text) for w in words if inner.contains_center(w.box))
        # In a scan all strokes of a drawing that touch are one shape.
        if (
            (members >= 4 or not layer.words)
            and min(inner.width, inner.height) > 5 * body
            and letters < 200
        ):
            out.append(_clip(inner, page))
    return out


def _merge(seen: list[tuple[Box, float]], share: float = 0.25) -> list[tuple[Box, float]]:
    """Union boxes that have more than ``share`` of the smaller one in common, until none do."""
    out: list[tuple[Box, float]] = []
    for box, score in sorted(seen, key=lambda pair: -pair[0].area):
        current, best = box, score
        while True:
            hit = next(
                (
                    o
                    for o in out
                    if current.intersection(o[0]) > share * max(min(current.area, o[0].area), 1e-6)
                ),
                None,
            )
            if hit is None:
                break
            out.remove(hit)
            current, best = current.union(hit[0]), max(best, hit[1])
        out.append((current, best))
    return out
