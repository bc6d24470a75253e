"""Bytes that a model's computation holds beside its weights, from its shapes.

What counts is what is alive at once in transformers' own modules under ``generate`` with scaled
dot-product attention. Each function lists the places where that is most and takes the highest;
they were found by counting the live tensors of every operation.

Shape letters: t tokens of one pass, p patches, d hidden width, f width of the MLP, e bytes of a
number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from octavo.hardware.plan_towers import (
    APART,
    CHUNKED,
    FIRST_CHUNK,
    audio_bytes,
    chunked_working,
    kept_bytes,
    vision_working,
)
from octavo.hardware.plan_working import Working, highest
from octavo.hardware.plan_workload import Pictures, Workload, pictures_of, sound_tokens
from octavo.hardware.spec import FLOAT_BYTES, ComponentSpec, ModelSpec, Precision, TextShape

__all__ = ["Costs", "Working", "compute_type", "costs", "generates"]

#: Sums, softmax and what chooses a token are done in float32.
FLOAT32: Final = 4
#: cuBLAS reserves this for each handle (``CUBLAS_WORKSPACE_CONFIG`` on Hopper; less elsewhere).
CUDA_WORKSPACE: Final = 32 * 1024 * 1024
#: Code, kernels, thread stacks and small freed blocks once a model has computed on a CPU: measured.
CPU_WORKSPACE: Final = 40_000_000
#: Pictures or texts of one pass where vectors are made and nothing is written.
EMBEDDING_BATCH: Final = 32
#: Families whose requests the engine answers together. Where weights stay it takes so many tokens
#: of prompts in one step; where they are streamed a prompt goes in one piece, since each piece
#: reads the weights.
TOGETHER: Final = APART | {"text"}
STEP_TOKENS: Final = 2048
#: In main memory freed blocks are used again within such a step and fit each other badly: what
#: the heap holds over what lives in it (measured).
_HEAP: Final = 2
#: Keys and values of older tokens that such a step gathers at once.
_TILE: Final = 16 << 20
TOWERS: Final = ("vision", "audio")


@dataclass(frozen=True, slots=True)
class Costs:
    """Bytes by use, for all requests of the batch.

    Attributes:
        prompt_tokens, kv_tokens: of one request: its prompt, and its prompt and answer.
        kv_prompt, kv: keys and values after the prompt, and at the end.
        features: what the towers hand to the decoder, and what else of theirs stays till then.
        inputs: pixel values and samples, as prepared and as cast.
        vision, audio, prefill, decode: intermediate results of each pass at its highest.
        workspace: what the device's libraries take once they compute.
    """

    prompt_tokens: int
    kv_tokens: int
    kv_prompt: int
    kv: int
    features: int
    inputs: int
    vision: Working | None
    audio: Working | None
    prefill: Working | None
    decode: Working | None
    workspace: int


def compute_type(precision: Precision) -> Precision:
    """In what sums are done for weights of this precision."""
    return Precision.BF16 if precision.quantized else precision


def generates(spec: ModelSpec) -> bool:
    """Whether the model writes text; else it makes vectors."""
    return spec.text is not None and spec.embedding_dim is None


def costs(
    spec: ModelSpec,
    workload: Workload,
    *,
    precisions: Mapping[str, Precision],
    device: str = "cpu",
    chunk: int | None = None,
    vision_batch: int | None = None,
    streams: bool = False,
) -> Costs:
    """What ``workload`` takes.

    Args:
        precisions: of every component.
        device: oneDNN on a CPU brings 16-bit weights into its own order for each product.
        chunk: tokens of one prefill pass; None is the whole prompt.
        vision_batch: pictures of one pass of the tower; None is all.
        streams: whether layers are read while it runs.
    """
    seen = pictures_of(spec, workload)
    heard = sound_tokens(spec, workload)
    decoder = [name for name in precisions if name not in TOWERS]
    tower = [name for name in precisions if name in TOWERS] or decoder
    e = FLOAT_BYTES[compute_type(precisions[decoder[0] if decoder else tower[0]])]
    e_tower = FLOAT_BYTES[compute_type(precisions[tower[0]])]
    writes = generates(spec)
    prompt = workload.prompt + seen.tokens + heard
    if not writes and spec.text is not None and spec.text.positions is not None:
        prompt = min(prompt, spec.text.positions)
    total = prompt + workload.new
    batch, shape = workload.batch, spec.text
    reordered = {
        part.name: _reordered(part, precisions[part.name]) if device == "cpu" else 0
        for part in spec.components
    }
    return Costs(
        prompt_tokens=prompt,
        kv_tokens=total if writes else 0,
        kv_prompt=batch * shape.kv_bytes(prompt, e) if writes and shape else 0,
        kv=batch * shape.kv_bytes(total, e) if writes and shape else 0,
        features=batch * kept_bytes(spec, seen, heard, e_tower) if writes else 0,
        inputs=batch * _input_bytes(spec, seen, workload, e_tower),
        vision=_vision(spec, seen, e_tower, batch, vision_batch, reordered, device),
        audio=_audio(spec, workload, e_tower),
        prefill=_step(spec, prompt, chunk, e, batch, reordered, device, streams=streams)
        if spec.family in TOGETHER
        else _prefill(spec, prompt, chunk, e, batch, reordered),
        decode=decode_working(shape, total, e, batch) if writes and shape else None,
        workspace=CPU_WORKSPACE if device == "cpu" else CUDA_WORKSPACE,
    )


def prefill_working(
    shape: TextShape, t: int, context: int, e: int, *, reordered: int = 0, deepstack: bool = False
) -> Working:
    """Intermediate results while ``t`` tokens of a sequence of ``context`` pass a layer.

    Args:
        reordered: bytes of the largest matrix of a layer, where the library copies it.
        deepstack: the tower's features are also added after the first layers: one copy more.
    """
    wide = t * shape.hidden * e
    inner = t * shape.heads * shape.head_dim * e
    kv = t * shape.kv_heads * shape.head_dim * e
    ffn = t * shape.ffn * e
    # The embeddings stay until the last layer, beside that layer's own input.
    standing = (3 if deepstack else 2) * wide
    # With a mask, keys and values are repeated for each head that shares them.
    masked = (
        t * context * (1 + e) + 2 * context * shape.heads * shape.head_dim * e if t < context else 0
    )
    return highest(
        Working("MLP", standing + 2 * wide + (3 if shape.gated else 2) * ffn),
        Working("MLP", standing + 3 * wide + ffn + reordered),
        Working("rotary positions", standing + wide + 4 * inner + 2 * kv),
        Working("attention", standing + wide + 2 * inner + 2 * kv + masked),
        Working("norm", standing + (2 * t * shape.hidden * FLOAT32 if e != FLOAT32 else 2 * wide)),
    )


def decode_working(shape: TextShape, context: int, e: int, batch: int = 1) -> Working:
    """One token of each request: keys of one layer are copied when a token is added to them."""
    one_layer = batch * context * shape.kv_heads * shape.head_dim * e
    logits = batch * shape.vocabulary * (e + 2 * FLOAT32)
    return highest(Working("keys of one layer", one_layer), Working("output head", logits))


def _prefill(
    spec: ModelSpec,
    prompt: int,
    chunk: int | None,
    e: int,
    batch: int,
    reordered: Mapping[str, int],
) -> Working | None:
    shape = spec.text
    if shape is None:
        return None
    t = prompt if chunk is None else min(prompt, chunk)
    layer = prefill_working(
        shape,
        t,
        prompt,
        e,
        reordered=reordered.get("language", 0) // batch,
        deepstack=spec.vision is not None and spec.vision.deepstack > 0,
    )
    layer = Working(f"{layer.name}, {t} tokens", layer.nbytes * batch)
    if not generates(spec):
        return layer
    logits = batch * (t * shape.hidden + shape.vocabulary) * e
    return highest(layer, Working("output head", logits))


def step_tokens(prompt: int, chunk: int | None, batch: int, *, streams: bool) -> tuple[int, int]:
    """Tokens that the engine takes of one prompt, and of all, in one step."""
    piece = min(prompt, chunk or prompt)
    if streams:
        return piece, piece * batch
    piece = min(piece, STEP_TOKENS)
    return piece, max(min(piece * batch, STEP_TOKENS), piece)


def _step(
    spec: ModelSpec,
    prompt: int,
    chunk: int | None,
    e: int,
    batch: int,
    reordered: Mapping[str, int],
    device: str,
    *,
    streams: bool,
) -> Working:
    """As the engine computes a prompt: many tokens of several prompts in a row."""
    shape = spec.text
    assert shape is not None
    piece, t = step_tokens(prompt, chunk, batch, streams=streams)
    deepstack = spec.vision is not None and spec.vision.deepstack > 0
    layer = prefill_working(
        shape, t, t, e, reordered=reordered.get("language", 0), deepstack=deepstack
    )
    # Attention over older tokens goes tile by tile, and is summed in float32.
    inner = t * shape.heads * shape.head_dim
    older = _TILE + inner * (2 * e + 3 * FLOAT32) + (3 if deepstack else 2) * t * shape.hidden * e
    found = highest(layer, Working("older tokens", older if prompt > piece else 0))
    logits = Working("output head", (t * shape.hidden + shape.vocabulary) * e)
    found = highest(Working(f"{found.name}, {t} tokens", found.nbytes), logits)
    return replace(found, nbytes=_HEAP * found.nbytes) if device == "cpu" else found


def _vision(
    spec: ModelSpec,
    seen: Pictures,
    e: int,
    batch: int,
    vision_batch: int | None,
    reordered: Mapping[str, int],
    device: str,
) -> Working | None:
    if spec.vision is None or not seen.count:
        return None
    matrices = (reordered.get("vision", 0), reordered.get("projector", 0))
    if spec.family in CHUNKED:
        chunk = FIRST_CHUNK["cpu" if device == "cpu" else "cuda"]
        return chunked_working(spec, seen.largest, chunk, e, *matrices)
    if spec.family in APART:
        return vision_working(spec, seen.largest, e, *matrices)
    count = seen.count * batch
    most = vision_batch or (count if generates(spec) else EMBEDDING_BATCH)
    patches = -(-seen.patches * batch * min(most, count) // count)
    return vision_working(spec, patches, e, *matrices)


def _audio(spec: ModelSpec, workload: Workload, e: int) -> Working | None:
    nbytes = workload.batch * audio_bytes(spec.audio, workload.audio_s, e)
    return Working("layer", nbytes) if nbytes else None


def _input_bytes(spec: ModelSpec, seen: Pictures, workload: Workload, e: int) -> int:
    """Pixel values as prepared in float32, and those that a pass casts to ``e``."""
    cast = 0 if spec.family in CHUNKED else seen.pixels
    if spec.family in APART and seen.patches:
        cast = cast * seen.largest // seen.patches
    pixels = 3 * (seen.pixels * FLOAT32 + (cast * e if e != FLOAT32 else 0))
    sound = int(workload.audio_s * spec.audio.rate * FLOAT32) if spec.audio else 0
    return pixels + sound


def _reordered(part: ComponentSpec, precision: Precision) -> int:
    """Bytes of the largest matrix in a layer that is multiplied in 16 bits.

    oneDNN copies a 16-bit weight into its own order for the time of the product. Quantized
    weights are made float in small blocks.
    """
    compute = compute_type(precision)
    if FLOAT_BYTES[compute] == FLOAT32:
        return 0
    inside = {name for layer in part.layers for name in layer}
    return max(
        (
            tensor.numel * FLOAT_BYTES[compute]
            for tensor in part.tensors
            if tensor.matrix
            and (tensor.name in inside or not inside or part.name == "vision")
            and not (precision.quantized and tensor.quantizable(precision))
        ),
        default=0,
    )
