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
#: Patches that make one token of the decoder, where the tower does not say.
_CELL: Final = 4
#: Families whose media the engine sends through the tower one at a time, and keeps the features
#: of; and those of them whose towers it runs in chunks of patches.
APART: Final = frozenset({"qwen3-vl", "qwen2.5-vl", "dots.ocr", "llava", "llava-next"})
CHUNKED: Final = frozenset({"qwen3-vl", "qwen2.5-vl", "dots.ocr"})
#: The chunk that is tried first. On a CPU more is no faster (measured), only higher; a GPU wants
#: more rows for each kernel.
FIRST_CHUNK: Final[Mapping[str, int]] = {"cpu": 512, "cuda": 4096}
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


def chunked_working(
    spec: ModelSpec, patches: int, chunk: int, itemsize: int, matrix: int = 0, merger: int = 0
) -> Working:
    """Intermediate results while ``patches`` go through a tower in chunks, features included;
    pixels as they were prepared are not, nor what libraries take once they compute.

    Hidden states, queries, keys and values of one layer and what turns them stand for all
    patches; the rest for a chunk.

    Args:
        matrix, merger: as in :func:`vision_working`.
    """
    shape = spec.vision
    assert shape is not None
    wide = patches * shape.hidden * itemsize
    turns = 2 * patches * (shape.hidden // shape.heads) * FLOAT32
    features = (1 + shape.deepstack) * (patches // _CELL) * shape.out_hidden * itemsize
    rows = min(chunk, patches)
    standing = 4 * wide + turns + features
    # The kernels order keys and values of all patches anew for each chunk of queries.
    ordered = 2 * wide
    ffn = (3 if shape.gated else 2) * shape.ffn * itemsize
    found = highest(
        Working("MLP", standing + rows * (2 * shape.hidden * itemsize + ffn)),
        Working("MLP", standing + rows * (2 * shape.hidden + shape.ffn) * itemsize + matrix),
        Working("attention", standing + ordered + 2 * rows * shape.hidden * itemsize + matrix // 4),
        Working("rotary positions", standing + rows * shape.hidden * (4 * itemsize + 6 * FLOAT32)),
        # Features of all taps are put together in the end.
        Working(
            "features", wide + turns + 2 * features + rows * 6 * shape.hidden * itemsize + merger
        ),
    )
    return Working(f"{found.name}, {patches} patches in chunks of {rows}", found.nbytes)


def kept_bytes(spec: ModelSpec, seen: Pictures, heard: int, e: int) -> int:
    """What of a request's media stays until the decoder is through the prompt."""
    habits, shape = _habits(spec), spec.vision
    nbytes = 0
    if shape is not None and seen.count:
        apart = spec.family in APART
        copies = (1 if apart else habits.features) + shape.deepstack
        nbytes += 0 if apart else habits.outputs * seen.patches * shape.hidden * e
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
