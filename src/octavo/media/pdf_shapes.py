"""Rulings, pictures and drawings of a PDF page, forms within forms included."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, field

from pypdfium2 import raw

from octavo.media.page import Ruling
from octavo.media.pdfium import Matrix, Placement, clip, quick
from octavo.types import Box

#: Drawings of one page that are looked at: plots of a hundred thousand points exist.
MAX_PATHS = 20_000
#: Segments of one path that are looked at; a longer path is a curve, not a table's lines.
MAX_SEGMENTS = 400
#: Forms within forms; deeper ones are left out.
MAX_DEPTH = 12
#: Page units: a filled rectangle thinner than this may stand for a line.
THICKEST = 3.0
#: A line is at least this long, and this many times longer than thick.
SHORTEST = 4.0
SLENDER = 4.0
#: A line may lean by this many page units and still be level or upright.
LEAN = 0.75

_Handle = ctypes.c_void_p
_Float = ctypes.POINTER(ctypes.c_float)
_Int = ctypes.POINTER(ctypes.c_int)
_page_count = quick("FPDFPage_CountObjects", ctypes.c_int, _Handle)
_page_object = quick("FPDFPage_GetObject", ctypes.c_void_p, _Handle, ctypes.c_int)
_form_count = quick("FPDFFormObj_CountObjects", ctypes.c_int, _Handle)
_form_object = quick("FPDFFormObj_GetObject", ctypes.c_void_p, _Handle, ctypes.c_ulong)
_type = quick("FPDFPageObj_GetType", ctypes.c_int, _Handle)
_bounds = quick("FPDFPageObj_GetBounds", ctypes.c_int, _Handle, *[_Float] * 4)
_matrix = quick("FPDFPageObj_GetMatrix", ctypes.c_int, _Handle, ctypes.c_void_p)
_draw_mode = quick("FPDFPath_GetDrawMode", ctypes.c_int, _Handle, _Int, _Int)
_stroke_width = quick("FPDFPageObj_GetStrokeWidth", ctypes.c_int, _Handle, _Float)
_segment_count = quick("FPDFPath_CountSegments", ctypes.c_int, _Handle)
_segment = quick("FPDFPath_GetPathSegment", ctypes.c_void_p, _Handle, ctypes.c_int)
_segment_point = quick("FPDFPathSegment_GetPoint", ctypes.c_int, _Handle, _Float, _Float)
_segment_type = quick("FPDFPathSegment_GetType", ctypes.c_int, _Handle)
_segment_closes = quick("FPDFPathSegment_GetClose", ctypes.c_int, _Handle)

_PATH, _IMAGE, _SHADING, _FORM = (
    raw.FPDF_PAGEOBJ_PATH,
    raw.FPDF_PAGEOBJ_IMAGE,
    raw.FPDF_PAGEOBJ_SHADING,
    raw.FPDF_PAGEOBJ_FORM,
)
_MOVE, _LINE = raw.FPDF_SEGMENT_MOVETO, raw.FPDF_SEGMENT_LINETO

#: The two ends of a straight stroke, in page units.
_Stroke = tuple[tuple[float, float], tuple[float, float]]


@dataclass(slots=True)
class Shapes:
    """What ``read_shapes`` finds, each list in the order of drawing."""

    rulings: list[Ruling] = field(default_factory=list)
    images: list[Box] = field(default_factory=list)
    shapes: list[Box] = field(default_factory=list)
    cut: bool = False


def read_shapes(page: int, placement: Placement) -> Shapes:
    """The drawings of a page.

    Args:
        page: address of an open FPDF_PAGE; call under the lock.
        placement: of the page. What lies outside it is left out.
    """
    found = Shapes()
    for seen, (handle, kind, to_page) in enumerate(_walk(page, placement.matrix)):
        if seen >= MAX_PATHS:
            found.cut = True
            break
        box = _box(handle, to_page, placement.box)
        if box is None:
            continue
        if kind == _IMAGE:
            found.images.append(box)
        elif kind == _SHADING:
            found.shapes.append(box)
        else:
            _add_path(handle, to_page, box, placement.box, found)
    return found


def _walk(page: int, to_page: Matrix) -> Iterator[tuple[int, int, Matrix]]:
    """Paths, pictures and shadings with the matrix that brings them to page units."""
    for i in range(_page_count(page)):
        yield from _descend(_page_object(page, i), to_page, 0)


def _descend(handle: int | None, to_page: Matrix, depth: int) -> Iterator[tuple[int, int, Matrix]]:
    if not handle:
        return
    kind = _type(handle)
    if kind in (_PATH, _IMAGE, _SHADING):
        yield handle, kind, to_page
    elif kind == _FORM and depth < MAX_DEPTH:
        inner = _matrix_of(handle).then(to_page)
        for i in range(_form_count(handle)):
            yield from _descend(_form_object(handle, i), inner, depth + 1)


def _matrix_of(handle: int) -> Matrix:
    values = (ctypes.c_float * 6)(1, 0, 0, 1, 0, 0)
    _matrix(handle, ctypes.addressof(values))
    return Matrix(*values)


def _box(handle: int, to_page: Matrix, page: Box) -> Box | None:
    """The part of an object's box that lies on the page."""
    left, bottom, right, top = (ctypes.c_float(0.0) for _ in range(4))
    if not _bounds(
        handle, ctypes.byref(left), ctypes.byref(bottom), ctypes.byref(right), ctypes.byref(top)
    ):
        return None
    return clip(to_page.box(left.value, bottom.value, right.value, top.value), page)


def _add_path(handle: int, to_page: Matrix, box: Box, page: Box, found: Shapes) -> None:
    """Sorts a path into lines and shapes, by how it is painted."""
    fill, stroke = ctypes.c_int(0), ctypes.c_int(0)
    _draw_mode(handle, ctypes.byref(fill), ctypes.byref(stroke))
    if not fill.value and not stroke.value:
        return
    thin = _thin(box)
    rulings: list[Ruling] = []
    straight = False
    if stroke.value:
        # pdfium widens the box of a stroked path by more than its pen: its segments tell.
        matrix = _matrix_of(handle).then(to_page)
        strokes = _strokes(handle, matrix) or []
        width = _width(handle, matrix)
        rulings = [one for ends in strokes if (one := _ruling(ends, width, page)) is not None]
        straight = 0 < len(strokes) <= 2 * len(rulings)
    if fill.value and thin is not None:
        found.rulings.append(thin)
        return
    found.rulings.extend(rulings)
    if fill.value or not straight:
        found.shapes.append(box)


def _thin(box: Box) -> Ruling | None:
    """A box that is as good as a line."""
    thick, long = sorted((box.width, box.height))
    if thick > THICKEST or long < max(SHORTEST, SLENDER * thick):
        return None
    return Ruling(box, horizontal=box.width > box.height)


def _width(handle: int, matrix: Matrix) -> float:
    width = ctypes.c_float(0.0)
    _stroke_width(handle, ctypes.byref(width))
    return width.value * matrix.scale


def _strokes(handle: int, matrix: Matrix) -> list[_Stroke] | None:
    """The straight strokes of a path, page units; ``None`` for one with curves or too many."""
    count = _segment_count(handle)
    if not 0 < count <= MAX_SEGMENTS:
        return None
    out: list[_Stroke] = []
    begin = here = (0.0, 0.0)
    x, y = ctypes.c_float(0.0), ctypes.c_float(0.0)
    for i in range(count):
        segment = _segment(handle, i)
        if not segment or not _segment_point(segment, ctypes.byref(x), ctypes.byref(y)):
            return None
        there = matrix.point(x.value, y.value)
        match _segment_type(segment):
            case kind if kind == _MOVE:
                begin = there
            case kind if kind == _LINE:
                out.append((here, there))
            case _:
                return None
        here = there
        if _segment_closes(segment):
            out.append((here, begin))
            here = begin
    return out


def _ruling(ends: _Stroke, width: float, page: Box) -> Ruling | None:
    """A level or upright stroke of this width, as far as it is on the page."""
    (x0, y0), (x1, y1) = ends
    wide, high = abs(x1 - x0), abs(y1 - y0)
    if max(wide, high) < SHORTEST or min(wide, high) > LEAN:
        return None
    horizontal = wide > high
    across = width / 2 if horizontal else 0.0
    beside = 0.0 if horizontal else width / 2
    whole = Box(
        min(x0, x1) - beside, min(y0, y1) - across, max(x0, x1) + beside, max(y0, y1) + across
    )
    box = clip(whole, page)
    return Ruling(box, horizontal) if box is not None else None
