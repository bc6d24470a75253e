"""Descriptions of models that were never written: shapes of real families, tensors by name."""

from __future__ import annotations

from octavo.hardware.pictures import FixedPicture, GridPicture
from octavo.hardware.spec import (
    ComponentSpec,
    ModelSpec,
    Precision,
    TensorSpec,
    TextShape,
    VisionShape,
)


def component(
    name: str, layers: int, matrices: dict[str, tuple[int, int]], outside: tuple[int, ...] = ()
) -> ComponentSpec:
    """A component of equal layers of bfloat16 ``matrices``, and tables of ``outside`` numbers."""
    tensors, grouped = [], []
    for number in range(layers):
        names = []
        for part, shape in matrices.items():
            key = f"{name}.layers.{number}.{part}"
            nbytes = shape[0] * shape[1] * 2
            tensors.append(TensorSpec(key, "a", 0, nbytes, "BF16", shape, matrix=True))
            names.append(key)
        grouped.append(tuple(names))
    tensors += [
        TensorSpec(f"{name}.table.{at}", "a", 0, count * 2, "BF16", (count,))
        for at, count in enumerate(outside)
    ]
    return ComponentSpec(name, tuple(tensors), tuple(grouped))


def decoder(
    layers: int = 12, hidden: int = 1024, ffn: int = 2816, words: int = 32_000
) -> TextShape:
    return TextShape(
        layers=layers,
        hidden=hidden,
        heads=hidden // 64,
        kv_heads=hidden // 128,
        head_dim=64,
        ffn=ffn,
        vocabulary=words,
        positions=32_768,
        tied=True,
    )


def text_model(layers: int = 12, hidden: int = 1024, ffn: int = 2816) -> ModelSpec:
    shape = decoder(layers, hidden, ffn)
    return ModelSpec("text", "text", Precision.BF16, (_language(shape),), text=shape)


def seeing_model(layers: int = 12) -> ModelSpec:
    """As Qwen3-VL is: pictures keep their shape."""
    shape = decoder(layers)
    tower = VisionShape(
        layers=12,
        hidden=1024,
        heads=16,
        ffn=4096,
        patch=16,
        picture=GridPicture(16, 2, 65_536, 16_777_216),
        out_hidden=1024,
        frames=8,
        frame_patches=2,
        deepstack=3,
    )
    parts = (
        component("vision", 12, {"qkv": (3072, 1024), "up": (4096, 1024), "down": (1024, 4096)}),
        component("projector", 0, {}, (4096 * 4096,)),
        _language(shape),
    )
    return ModelSpec("sees", "qwen3-vl", Precision.BF16, parts, text=shape, vision=tower)


def embedding_model() -> ModelSpec:
    """As CLIP is: no decoder."""
    shape = TextShape(12, 512, 8, 8, 64, 2048, 49_408, positions=77, gated=False)
    tower = VisionShape(12, 768, 12, 3072, 32, FixedPicture(224, 32, 0, extra=1), 512)
    parts = (
        component("vision", 12, {"q": (768, 768), "up": (3072, 768), "down": (768, 3072)}),
        component("language", 12, {"q": (512, 512), "up": (2048, 512)}, (49_408 * 512,)),
    )
    return ModelSpec(
        "clip", "clip", Precision.BF16, parts, text=shape, vision=tower, embedding_dim=512
    )


def _language(shape: TextShape) -> ComponentSpec:
    matrices = {
        "q": (shape.hidden, shape.hidden),
        "k": (shape.kv_heads * shape.head_dim, shape.hidden),
        "v": (shape.kv_heads * shape.head_dim, shape.hidden),
        "o": (shape.hidden, shape.hidden),
        "gate": (shape.ffn, shape.hidden),
        "up": (shape.ffn, shape.hidden),
        "down": (shape.hidden, shape.ffn),
    }
    return component(
        "language", shape.layers, matrices, (shape.vocabulary * shape.hidden, shape.hidden)
    )
