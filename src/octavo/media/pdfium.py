"""The one door to pdfium: its lock, its functions, and how user space becomes page units."""

from __future__ import annotations

import ctypes
import math
import threading
from dataclasses import dataclass
from typing import Any

from pypdfium2 import raw

from octavo.types import Box

#: pdfium keeps global state: every call, closing included, is made under this lock.
LOCK = threading.RLock()


def quick(name: str, result: Any, *arguments: Any) -> Any:
    """A pdfium function that keeps the interpreter lock during the call.

    Reading a character costs less than giving the interpreter away and getting it back, and
    with another busy thread each hand-over may wait for a switch interval. Only for calls that
    take microseconds; loading and drawing pages go through ``raw``, which lets other threads run.
    """
    address = address_of(getattr(raw, name))
    return ctypes.PYFUNCTYPE(result, *arguments)(address)


def address_of(handle: Any) -> int:
    """A handle as the number that ``quick`` functions take."""
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


@dataclass(frozen=True, slots=True)
class Matrix:
    """``x' = a x + c y + e``, ``y' = b x + d y + f``: the order of PDF and of FS_MATRIX."""

    a: float = 1.0
    b: float = 0.0
    c: float = 0.0
    d: float = 1.0
    e: float = 0.0
    f: float = 0.0

    def then(self, after: Matrix) -> Matrix:
        """First this one, then ``after``."""
        return Matrix(
            self.a * after.a + self.b * after.c,
            self.a * after.b + self.b * after.d,
            self.c * after.a + self.d * after.c,
            self.c * after.b + self.d * after.d,
            self.e * after.a + self.f * after.c + after.e,
            self.e * after.b + self.f * after.d + after.f,
        )

    def point(self, x: float, y: float) -> tuple[float, float]:
        return self.a * x + self.c * y + self.e, self.b * x + self.d * y + self.f

    def box(self, x0: float, y0: float, x1: float, y1: float) -> Box:
        """The box around the image of a rectangle given by two opposite corners."""
        corners = [self.point(x, y) for x in (x0, x1) for y in (y0, y1)]
        xs = [x for x, _ in corners]
        ys = [y for _, y in corners]
        return Box(min(xs), min(ys), max(xs), max(ys))

    @property
    def scale(self) -> float:
        """The factor on lengths, averaged over directions."""
        return math.sqrt(abs(self.a * self.d - self.b * self.c))


@dataclass(frozen=True, slots=True)
class Placement:
    """How a page lies in front of its viewer.

    Attributes:
        matrix: from PDF user space (origin anywhere, y up) to page units of the page as shown
            (origin top left, y down), crop box and /Rotate applied.
        rotation: /Rotate, degrees clockwise.
        width, height: of the page as shown. /UserUnit is left out: pdfium does not give it.
    """

    matrix: Matrix
    rotation: int
    width: float
    height: float

    @property
    def box(self) -> Box:
        return Box(0.0, 0.0, self.width, self.height)

    @classmethod
    def around(
        cls, left: float, bottom: float, right: float, top: float, rotation: int
    ) -> Placement:
        """The placement of a page whose visible box in user space is given."""
        wide, high = right - left, top - bottom
        match rotation:
            case 90:
                return cls(Matrix(0, 1, 1, 0, -bottom, -left), 90, high, wide)
            case 180:
                return cls(Matrix(-1, 0, 0, 1, right, -bottom), 180, wide, high)
            case 270:
                return cls(Matrix(0, -1, -1, 0, top, right), 270, high, wide)
            case _:
                return cls(Matrix(1, 0, 0, -1, -left, top), 0, wide, high)


def clip(box: Box, inside: Box) -> Box | None:
    """The part of ``box`` that lies in ``inside``; ``None`` when they do not touch."""
    left, right = max(box.left, inside.left), min(box.right, inside.right)
    top, bottom = max(box.top, inside.top), min(box.bottom, inside.bottom)
    return Box(left, top, right, bottom) if left <= right and top <= bottom else None
