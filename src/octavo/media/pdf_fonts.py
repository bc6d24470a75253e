"""What a font of a PDF says about itself: its name, and whether it is bold, italic or mono."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

from octavo.media.pdfium import quick

_NAME_BYTES = 256
_FIXED_PITCH = 1 << 0
_ITALIC = 1 << 6
_FORCE_BOLD = 1 << 18
#: pdfium derives the weight from the stem: 420 for Times, 440 for Helvetica, 570 for CMBX10.
_BOLD_WEIGHT = 650

_SUBSET = re.compile(r"^[A-Z]{6}\+")
# "Bd", "It" and the like only as the last word of a name: "-BdIt", "-It", ",Bold".
_BOLD_NAME = re.compile(
    r"(?i:bold|semibold|demibold)|Black(?![a-z])|Heavy|Demi(?![a-z])|-Bd|CMBX|CMSSBX|SFBX|\.B$"
)
_ITALIC_NAME = re.compile(r"(?i:italic|oblique)|-It$|-BdIt|CMTI|CMMI|CMSL|SFTI|\.I$")
_MONO_NAME = re.compile(r"(?i:courier|monospace|consol|typewriter)|Mono(?![a-z])|CMTT|SFTT")

_base_name = quick(
    "FPDFFont_GetBaseFontName", ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
)
_flags = quick("FPDFFont_GetFlags", ctypes.c_int, ctypes.c_void_p)
_weight = quick("FPDFFont_GetWeight", ctypes.c_int, ctypes.c_void_p)
_italic_angle = quick(
    "FPDFFont_GetItalicAngle", ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)
)


@dataclass(frozen=True, slots=True)
class Face:
    """A font as far as a reader of the page cares."""

    name: str = ""
    bold: bool = False
    italic: bool = False
    mono: bool = False


def read_face(font: int) -> Face:
    """The face of a font handle; call under the lock."""
    if not font:
        return Face()
    buffer = ctypes.create_string_buffer(_NAME_BYTES)
    used = _base_name(font, ctypes.addressof(buffer), _NAME_BYTES)
    text = buffer.raw[: max(used - 1, 0)].decode("utf-8", "replace") if used <= _NAME_BYTES else ""
    angle = ctypes.c_int(0)
    leaning = bool(_italic_angle(font, ctypes.byref(angle))) and angle.value != 0
    return face_of(_SUBSET.sub("", text), max(_flags(font), 0), _weight(font), leaning)


def face_of(name: str, flags: int, weight: int, leaning: bool) -> Face:
    """Joins what the name, the flags (ISO 32000-1, table 123) and the descriptor say."""
    return Face(
        name=name,
        bold=bool(flags & _FORCE_BOLD) or weight >= _BOLD_WEIGHT or bool(_BOLD_NAME.search(name)),
        italic=bool(flags & _ITALIC) or leaning or bool(_ITALIC_NAME.search(name)),
        mono=bool(flags & _FIXED_PITCH) or bool(_MONO_NAME.search(name)),
    )
