"""Sizes and shapes of a Whisper, from the headers of either kind of checkpoint."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from octavo.errors import InputError, UnsupportedFormat
from octavo.hardware.spec import AudioShape, ModelSpec, Precision, TensorSpec, TextShape
from octavo.models.checkpoint import Checkpoint, require
from octavo.models.families._ctranslate2 import BINARY, Binary, read_binary, scalar
from octavo.models.family import Family, components

#: Of the sound that every Whisper takes, in Hz.
RATE: Final = 16_000
#: What CTranslate2 calls it.
SPEC: Final = "WhisperSpec"
#: The encoder gives one state for each 20 ms (section 2.2 of the paper).
_STATES_PER_S: Final = 50.0
_STORED: Final = {
    "F32": Precision.FP32, "F16": Precision.FP16, "BF16": Precision.BF16, "I8": Precision.INT8,
}  # fmt: skip
_LAYER: Final = re.compile(r"(?:/layer_|\.layers\.)(\d+)[/.]")


def describe_binary(family: Family, checkpoint: Checkpoint) -> ModelSpec:
    """From the header of CTranslate2's file.

    Raises:
        InputError: damaged, or not a Whisper.
    """
    binary = read_binary(checkpoint)
    tensors = binary.tensors
    try:
        if binary.spec != SPEC:
            raise UnsupportedFormat(
                f"{BINARY} holds {binary.spec}, not Whisper", where=checkpoint.name
            )
        return ModelSpec(
            name=checkpoint.name,
            family=family.name,
            stored=_stored(list(tensors.values())),
            components=components(
                family, tensors, ("audio", "language"), _layer_of, lambda tensor: tensor.matrix
            ),
            text=_text_shape(checkpoint, binary),
            audio=_audio_shape(checkpoint, binary),
            facts={"format": "CTranslate2"},
        )
    except KeyError as error:
        raise InputError(
            f"{BINARY} has no {error.args[0]}",
            where=checkpoint.name,
            next_step="convert the model again",
        ) from error


def _text_shape(checkpoint: Checkpoint, binary: Binary) -> TextShape:
    tensors = binary.tensors
    vocabulary, hidden = tensors["decoder/embeddings/weight"].shape
    heads = scalar(checkpoint, tensors["decoder/num_heads"])
    return TextShape(
        layers=_depth(binary, "decoder/"),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=tensors["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        vocabulary=vocabulary,
        positions=tensors["decoder/position_encodings/encodings"].shape[0],
        tied="decoder/projection/weight" not in tensors,
        gated=False,
    )


def _audio_shape(checkpoint: Checkpoint, binary: Binary) -> AudioShape:
    tensors = binary.tensors
    hidden = tensors["encoder/position_encodings/encodings"].shape[1]
    return AudioShape(
        layers=_depth(binary, "encoder/"),
        hidden=hidden,
        heads=scalar(checkpoint, tensors["encoder/num_heads"]),
        ffn=tensors["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        rate=RATE,
        tokens_per_second=_STATES_PER_S,
        out_hidden=hidden,
    )


def _depth(binary: Binary, stack: str) -> int:
    found = {_layer_of(name) for name in binary.tensors if name.startswith(stack)}
    return len(found - {None})


def describe_transformers(family: Family, checkpoint: Checkpoint) -> ModelSpec:
    """From ``config.json`` and the headers of safetensors.

    Raises:
        InputError: they are not those of a Whisper.
    """
    config = config_of(checkpoint)
    tensors = checkpoint.tensors
    hidden = config["d_model"]
    heads = config["decoder_attention_heads"]
    return ModelSpec(
        name=checkpoint.name,
        family=family.name,
        stored=_stored(list(tensors.values())),
        components=components(
            family,
            tensors,
            ("audio", "language"),
            _layer_of,
            lambda tensor: len(tensor.shape) == 2 and _layer_of(tensor.name) is not None,
        ),
        text=TextShape(
            layers=config["decoder_layers"],
            hidden=hidden,
            heads=heads,
            kv_heads=heads,
            head_dim=hidden // heads,
            ffn=config["decoder_ffn_dim"],
            vocabulary=config["vocab_size"],
            positions=config.get("max_target_positions", 448),
            tied="proj_out.weight" not in tensors,
            gated=False,
        ),
        audio=AudioShape(
            layers=config["encoder_layers"],
            hidden=hidden,
            heads=config["encoder_attention_heads"],
            ffn=config["encoder_ffn_dim"],
            rate=RATE,
            tokens_per_second=_STATES_PER_S,
            out_hidden=hidden,
        ),
        facts={"format": "transformers"},
    )


def config_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """A configuration of transformers, with what is needed of it."""
    keys = (
        "d_model", "vocab_size", "encoder_layers", "encoder_attention_heads", "encoder_ffn_dim",
        "decoder_layers", "decoder_attention_heads", "decoder_ffn_dim",
    )  # fmt: skip
    for key in keys:
        require(checkpoint.config, key, checkpoint.name)
    return dict(checkpoint.config)


def _layer_of(name: str) -> int | None:
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def _stored(tensors: Sequence[TensorSpec]) -> Precision:
    """The type of most weights; 8-bit ones stand beside their float scales."""
    weights = Counter[str]()
    for tensor in tensors:
        if tensor.dtype in _STORED and tensor.shape:
            weights[tensor.dtype] += tensor.numel
    if not weights:
        raise KeyError("weights")
    return _STORED[weights.most_common(1)[0][0]]
