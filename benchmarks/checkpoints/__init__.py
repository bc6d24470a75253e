"""Checkpoints with random weights: ``tiny`` for tests, real shapes for benchmarks.

``python -m benchmarks.checkpoints qwen3-vl tiny FOLDER`` writes one with its tokenizer and
processor. What they answer is noise; how they load, fit and compute is real.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol


class Maker(Protocol):
    """A module under ``benchmarks.checkpoints``: one family.

    Attributes:
        SHAPES: names of shapes → one line about it; ``tiny`` is among them.
    """

    SHAPES: Mapping[str, str]

    def make(self, folder: Path, shape: str = "tiny", seed: int = 0) -> None:
        """Writes ``config.json``, weights, tokenizer and processor into ``folder``."""
        ...


#: Families as ``octavo platforms`` names them → module.
MAKERS: Final[Mapping[str, str]] = {
    "qwen3-vl": "qwen3_vl",
    "qwen2.5-vl": "qwen2_5_vl",
    "dots.ocr": "dots_ocr",
    "gemma3n": "gemma3n",
    "phi4-multimodal": "phi4_multimodal",
    "llava": "llava",
    "llava-next": "llava_next",
    "blip": "blip",
    "blip-2": "blip_2",
    "clip": "clip",
    "x-clip": "x_clip",
    "text": "text",
    "sentence": "sentence",
}


def maker(family: str) -> Maker:
    """The maker of a family; KeyError for one that has none."""
    found: Maker = importlib.import_module(f"benchmarks.checkpoints.{MAKERS[family]}")
    return found


def make(family: str, folder: Path, shape: str = "tiny", seed: int = 0) -> Path:
    """Writes a checkpoint of ``family`` into ``folder``, which is made, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    maker(family).make(folder, shape, seed)
    return folder
