"""The settings of a run: one frozen dataclass, three modes, no other dial."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from octavo.errors import ConfigError

Mode = Literal["quality", "fast", "small-memory"]
Ocr = Literal["auto", "always", "never"]

MODES: tuple[Mode, ...] = ("quality", "fast", "small-memory")
OCR_CHOICES: tuple[Ocr, ...] = ("auto", "always", "never")

#: What a mode sets unless the caller says otherwise.
PRESETS: Mapping[Mode, Mapping[str, Any]] = {
    "quality": {},
    "fast": {"pdf_dpi": 150, "batch_size": 64},
    "small-memory": {"pdf_dpi": 150, "max_long_edge_px": 2000, "batch_size": 4},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineConfig:
    """Everything that can be set. Wrong values raise ``ConfigError``.

    ``PipelineConfig.build(mode="fast", ...)`` fills what is not named from the mode's preset; the
    bare constructor takes the defaults below.

    Attributes:
        mode: ``quality``, ``fast`` or ``small-memory``.
        pages: 1-based numbers and ranges such as ``1-20,33`` or ``5-``; None is all.
        password: opens an encrypted file. Never written to a journal, report or hash.
        pdf_dpi: pixels an inch at which PDF pages are drawn for layout, OCR and pictures.
        max_long_edge_px: upper bound of the long edge of a drawn page, in pixels.
        ocr: ``auto`` reads the pixels only where the text layer is not sound.
        layout_model: whether the layout model may be asked (``fast`` asks it only where the
            geometry of the page leaves doubt).
        batch_size: pages handed to the reader at a time.
        page_timeout_s: seconds after which a page is given up.
        worker_memory_mb: resident memory, in units of 2**20 bytes, over which the process that
            reads pages is ended; the page that it was at fails. Not for a reader of the caller's.
        padding: pixels around a crop.
        crop_upscale: how much finer than the page a crop is drawn.
        save_pages, save_crops: write ``pages/`` and ``crops/``.
        save_manifest, manifest_filename: list the crops in a JSON file.
        summaries: extractive summaries of every page and of the document.
        html: write ``report.html``.
    """

    mode: Mode = "quality"
    pages: str | None = None
    password: str | None = field(default=None, repr=False)
    pdf_dpi: int = 200
    max_long_edge_px: int | None = None
    ocr: Ocr = "auto"
    layout_model: bool = True
    batch_size: int = 32
    page_timeout_s: float = 120.0
    worker_memory_mb: int = 4096
    padding: int = 12
    crop_upscale: float = 2.0
    save_pages: bool = True
    save_crops: bool = True
    save_manifest: bool = False
    manifest_filename: str = "manifest.json"
    summaries: bool = True
    html: bool = True

    def __post_init__(self) -> None:
        for name, (meaning, is_right) in _RULES.items():
            value = getattr(self, name)
            if not is_right(value):
                shown = "this value" if name == "password" else repr(value)
                raise ConfigError(
                    f"{shown} is not {meaning}", where=name, next_step=f"set {name} to {meaning}"
                )
        if self.pages is not None:
            parse_ranges(self.pages)

    @classmethod
    def build(cls, **settings: Any) -> PipelineConfig:
        """The preset of ``settings["mode"]``, with the other settings laid over it.

        Raises:
            ConfigError: an unknown name (the nearest is in ``next_step``) or a wrong value.
        """
        for name in settings:
            check_name(name)
        mode = settings.get("mode", "quality")
        preset = PRESETS[mode] if mode in MODES else {}
        return cls(**{**preset, **settings})

    def content_settings(self) -> dict[str, Any]:
        """The settings that decide what a page's result, picture and crops look like.

        Pages read under other values of these are not reused. What is computed when the report
        is composed (summaries, HTML, manifest) is not among them, nor is the password.
        """
        return {name: getattr(self, name) for name in _CONTENT}


def check_name(name: str, *, where: str | None = None) -> None:
    """Raises ``ConfigError`` with the nearest name unless ``name`` is a setting."""
    if name not in FIELD_NAMES:
        raise ConfigError(
            f"unknown setting {name!r}", where=where, next_step=nearest(name, FIELD_NAMES)
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?``, or the list of what there is when nothing is near."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def parse_ranges(text: str) -> tuple[tuple[int, int | None], ...]:
    """``1-20,33,40-`` as (first, last) pairs, both included; a last of None is the end.

    Raises:
        ConfigError: not numbers and ranges, a zero, or a range that runs backwards.
    """
    pairs = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:(-)\s*(\d+)?\s*)?", part, re.ASCII)
        if match is None:
            raise _bad_pages(text, f"cannot read {part.strip()!r}")
        first = int(match[1])
        last = first if match[2] is None else int(match[3]) if match[3] else None
        if first < 1 or (last is not None and last < first):
            raise _bad_pages(text, f"{part.strip()!r} is no range of page numbers")
        pairs.append((first, last))
    return tuple(pairs)


def select_pages(text: str | None, count: int) -> tuple[int, ...]:
    """The 1-based numbers that ``text`` names in a file of ``count`` pages, ascending, once each.

    Raises:
        ConfigError: none of them is in the file.
    """
    if text is None:
        return tuple(range(1, count + 1))
    chosen: set[int] = set()
    for first, last in parse_ranges(text):
        chosen.update(range(first, min(count if last is None else last, count) + 1))
    if not chosen and count:
        raise ConfigError(
            f"no page of {text!r} is in a file of {count} pages",
            where="pages",
            next_step=f"name pages from 1 to {count}",
        )
    return tuple(sorted(chosen))


def _bad_pages(text: str, why: str) -> ConfigError:
    return ConfigError(
        f"{text!r}: {why}", where="pages", next_step="write numbers and ranges, such as 1-20,33"
    )


def _whole(low: int, high: int) -> Callable[[object], bool]:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def _real(low: float, high: float) -> Callable[[object], bool]:
    return lambda v: isinstance(v, int | float) and not isinstance(v, bool) and low <= v <= high


def _one_of(choices: tuple[str, ...]) -> tuple[str, Callable[[object], bool]]:
    return "one of " + ", ".join(choices), lambda v: isinstance(v, str) and v in choices


def _or_none(rule: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda v: v is None or rule(v)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def is_plain_name(value: object) -> bool:
    """A file name that stays in its folder and cannot hide or overwrite a report."""
    return (
        isinstance(value, str)
        and re.fullmatch(r"[A-Za-z0-9_][\w.\- ]{0,99}", value) is not None
        and not value.startswith(("report.", "journal."))
        and value not in ("pages", "crops")
    )


_BOOL = ("true or false", _is_bool)

#: Name → (the values in words, the check).
_RULES: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "mode": _one_of(MODES),
    "pages": ("page numbers as text, such as 1-20,33", _or_none(_is_text)),
    "password": ("a text", _or_none(_is_text)),
    "pdf_dpi": ("a whole number from 36 to 1200", _whole(36, 1200)),
    "max_long_edge_px": ("a whole number from 256 to 20000", _or_none(_whole(256, 20_000))),
    "ocr": _one_of(OCR_CHOICES),
    "layout_model": _BOOL,
    "batch_size": ("a whole number from 1 to 1024", _whole(1, 1024)),
    "page_timeout_s": ("a number of seconds from 0.1 to 86400", _real(0.1, 86_400)),
    "worker_memory_mb": ("a whole number from 256 to 1048576", _whole(256, 1 << 20)),
    "padding": ("a whole number from 0 to 1000", _whole(0, 1000)),
    "crop_upscale": ("a number from 0.25 to 8", _real(0.25, 8)),
    "save_pages": _BOOL,
    "save_crops": _BOOL,
    "save_manifest": _BOOL,
    "manifest_filename": ("a plain file name that no report uses", is_plain_name),
    "summaries": _BOOL,
    "html": _BOOL,
}

_CONTENT = (
    "mode",
    "pdf_dpi",
    "max_long_edge_px",
    "ocr",
    "layout_model",
    "padding",
    "crop_upscale",
    "save_pages",
    "save_crops",
)

#: Every setting, in the order of the dataclass.
FIELD_NAMES: tuple[str, ...] = tuple(f.name for f in fields(PipelineConfig))
