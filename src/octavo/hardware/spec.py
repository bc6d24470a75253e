"""What a planner, a loader and a browser need to know of a model: numbers, names, byte ranges.

Made by a family from a checkpoint's ``config.json`` and the headers of its weight files; no
tensor is read for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from octavo.hardware.pictures import PictureRule


class Precision(StrEnum):
    """How a weight is held. ``INT8`` and ``INT4`` are of weights only; sums stay in float."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"

    @property
    def quantized(self) -> bool:
        return self in (Precision.INT8, Precision.INT4)


#: Bytes of one number as safetensors names its type.
STORED_BYTES: Final[Mapping[str, int]] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
FLOAT_BYTES: Final[Mapping[Precision, int]] = {
    Precision.FP32: 4, Precision.BF16: 2, Precision.FP16: 2,
}  # fmt: skip
#: INT8: one float32 scale an output row. INT4: groups of this many inputs, each with a bfloat16
#: scale and a bfloat16 middle (the least value and 8 scales).
INT4_GROUP: Final = 64


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor in a file.

    Attributes:
        name: as the checkpoint has it.
        file: relative to the checkpoint's folder.
        offset, nbytes: of its bytes in the file.
        dtype: as safetensors names it.
        shape: as stored.
        matrix: the weight of a linear layer, which may be quantized.
    """

    name: str
    file: str
    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]
    matrix: bool = False

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def quantizable(self, precision: Precision) -> bool:
        """Whether it is held quantized at ``precision``; else it stays in float."""
        if not self.matrix or len(self.shape) != 2:
            return False
        return precision is Precision.INT8 or self.shape[1] % INT4_GROUP == 0

    def bytes_at(self, precision: Precision | None, compute: Precision = Precision.BF16) -> int:
        """Bytes when loaded; what is not quantizable is held at ``compute``; None keeps the
        stored type. Integers are never cast."""
        if precision is None or self.dtype not in ("F64", "F32", "F16", "BF16"):
            return self.nbytes
        if precision.quantized and self.quantizable(precision):
            rows = self.shape[0]
            if precision is Precision.INT8:
                return self.numel + 4 * rows
            return self.numel // 2 + 4 * (self.numel // INT4_GROUP)
        return self.numel * FLOAT_BYTES[compute if precision.quantized else precision]


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """A part of a model that is loaded, placed and given a precision as one.

    Attributes:
        name: ``language``, ``vision``, ``audio`` or ``projector``.
        tensors: in file order.
        layers: names of the tensors of each repeated layer, in order of use; tensors in none of
            them (embeddings, norms, heads) are always resident.
    """

    name: str
    tensors: tuple[TensorSpec, ...]
    layers: tuple[tuple[str, ...], ...] = ()

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def parameters(self) -> int:
        return sum(tensor.numel for tensor in self.tensors)

    def bytes_at(self, precision: Precision | None, compute: Precision = Precision.BF16) -> int:
        return sum(tensor.bytes_at(precision, compute) for tensor in self.tensors)

    def layer_bytes_at(
        self, precision: Precision | None, compute: Precision = Precision.BF16
    ) -> tuple[int, ...]:
        """Bytes of each layer, in order of use."""
        sizes = {tensor.name: tensor.bytes_at(precision, compute) for tensor in self.tensors}
        return tuple(sum(sizes[name] for name in layer) for layer in self.layers)


@dataclass(frozen=True, slots=True)
class TextShape:
    """A decoder. ``window``: tokens that a sliding layer sees; ``full_layers``: how many layers
    see everything (all without a window). ``kv_layers``: layers with their own keys and values."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    positions: int | None = None
    tied: bool = False
    gated: bool = True
    window: int | None = None
    full_layers: int | None = None
    kv_layers: int | None = None

    def kv_bytes(self, tokens: int, element: int = 2) -> int:
        """Keys and values of one sequence of ``tokens``."""
        layers = self.layers if self.kv_layers is None else self.kv_layers
        full = layers if self.full_layers is None or self.window is None else self.full_layers
        seen = min(tokens, self.window) if self.window is not None else tokens
        one = 2 * self.kv_heads * self.head_dim * element
        return one * (full * tokens + (layers - full) * seen)


@dataclass(frozen=True, slots=True)
class VisionShape:
    """A vision tower. ``picture`` says how many patches and tokens a picture becomes;
    ``frames`` is the usual number of a film (0: no films); ``frame_patches`` the frames that
    share one patch; ``deepstack`` how many further copies of the features the decoder takes."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    patch: int
    picture: PictureRule
    out_hidden: int
    gated: bool = False
    frames: int = 0
    frame_patches: int = 1
    deepstack: int = 0


@dataclass(frozen=True, slots=True)
class AudioShape:
    """An audio tower. ``rate`` in Hz; ``tokens_per_second`` of sound that the decoder sees."""

    layers: int
    hidden: int
    heads: int
    ffn: int
    rate: int
    tokens_per_second: float
    out_hidden: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A checkpoint as a family understands it.

    Attributes:
        name: what the user called it.
        family: of :mod:`octavo.models`.
        stored: the float type of most of its weights.
        components: in order of use.
        text, vision, audio: None where there is no such part. For models without a decoder
            (CLIP) ``text`` is the text tower.
        embedding_dim: of search vectors; None where the family makes none.
        facts: what else explains it (licence, revision), for people.
    """

    name: str
    family: str
    stored: Precision
    components: tuple[ComponentSpec, ...]
    text: TextShape | None = None
    vision: VisionShape | None = None
    audio: AudioShape | None = None
    embedding_dim: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def component(self, name: str) -> ComponentSpec:
        """Raises KeyError when the model has no such component."""
        return {component.name: component for component in self.components}[name]

    @property
    def nbytes(self) -> int:
        return sum(component.nbytes for component in self.components)

    @property
    def parameters(self) -> int:
        return sum(component.parameters for component in self.components)
