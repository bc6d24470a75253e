"""Bytes that vision and audio towers hold while they run, and hand on.

Shape letters: p patches, d hidden width, f width of the MLP, e bytes of a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from octavo.hardware.plan_working import Working, highest
from octavo.hardware.plan_workload import Pictures
from octavo.hardware.spec import AudioShape, ModelSpec

FLOAT32: Final = 4
#: An audio tower looks at this many frames for each token that it hands on.
_FRAMES_A_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Habits:
    """How a family's tower is written, as far as memory cares.

    Attributes:
        standing: copies of the hidden states in the MLP: its input, the layer's, the residual.
        activation: copies of the MLP's width at its activation.
        rotary: queries and keys are turned in float32, from one product for q, k and v.
        positions: sums of position embeddings in float32 that stay while the tower runs.
        outputs: hidden states that stay until the decoder is through the prompt.
        features: copies of the features that do.
    """

    standing: int = 4
    activation: int = 2
    rotary: bool = False
    positions: bool = False
    outputs: int = 1
    features: int = 2


#: CLIP's activation is x * sigmoid(1.702 x): three tensors of the MLP's width at once.
_CLIP: Final = Habits(activation=3, outputs=2)
#: By family; others are planned as a plain transformer.
HABITS: Final[Mapping[str, Habits]] = {
    "qwen3-vl": Habits(standing=3, rotary=True, positions=True, features=1),
    "qwen2.5-vl": Habits(standing=3, activation=3, rotary=True),
    "dots.ocr": Habits(standing=3, activation=1, outputs=0, features=1),
    "llava": _CLIP,
    "llava-next": _CLIP,
    "clip": _CLIP,
    "x-clip": _CLIP,
}


def vision_working(
    spec: ModelSpec, patches: int, e: int, matrix: int = 0, merger: int = 0
) -> Working:
    """Intermediate results while ``patches`` go through the tower.

    Args:
        matrix, merger: bytes of the largest matrix of a layer, and of what turns hidden states
            into features, where the library copies them.
    """
    shape = spec.vision
    assert shape is not None
    habits = _habits(spec)
    wide, ffn = patches * shape.hidden * e, patches * shape.ffn * e
    wide32 = patches * shape.hidden * FLOAT32
    # Features of deepstack layers wait beside the last layers.
    cell = 4
    taps = shape.deepstack * (patches // cell) * shape.out_hidden * e
    standing = (wide32 if habits.positions else 0) + taps
    # In float32 queries and keys are turned as they are; else both have a copy.
    turned = 4 if e == FLOAT32 else 6
    places = [
        Working("MLP", standing + habits.standing * wide + habits.activation * ffn),
        Working("MLP", standing + (habits.standing + 1) * wide + ffn + matrix),
        Working("attention", standing + 8 * wide + matrix // 4),
        Working("merger", standing + 2 * wide + patches // cell * shape.out_hidden * e + merger),
    ]
    if habits.rotary:
        places.append(Working("rotary positions", standing + 5 * wide + turned * wide32))
    found = highest(*places)
    return Working(f"{found.name}, {patches} patches", found.nbytes)


def kept_bytes(spec: ModelSpec, seen: Pictures, heard: int, e: int) -> int:
    """What of a request's media stays until the decoder is through the prompt."""
    habits, shape = _habits(spec), spec.vision
    nbytes = 0
    if shape is not None and seen.count:
        copies = habits.features + shape.deepstack
        nbytes += habits.outputs * seen.patches * shape.hidden * e
        nbytes += copies * seen.tokens * shape.out_hidden * e
    if spec.audio is not None:
        nbytes += heard * spec.audio.out_hidden * e
    return nbytes


def audio_bytes(shape: AudioShape | None, seconds: float, e: int) -> int:
    """Intermediate results of one pass over the sound; an estimate from the shape alone."""
    if shape is None or not seconds:
        return 0
    rows = int(seconds * shape.tokens_per_second * _FRAMES_A_TOKEN) + 1
    return rows * (2 * shape.ffn + 4 * shape.hidden) * e


def _habits(spec: ModelSpec) -> Habits:
    return HABITS.get(spec.family, Habits())
