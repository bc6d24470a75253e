"""Ratio, speed and error of every codec, beside other ways to make tensors smaller.

One thread for everyone. Rounds are interleaved: each codec and each rival works through the tensor
once, then all again; a figure is that of the median round. Lossless rivals are Blosc2, zstd
without the shuffle, ``torch.save`` through gzip, and ``numpy.savez_compressed``.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import io
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import zstandard

from octavo.errors import CodecError
from octavo.memory.buffers import memory_of
from octavo.memory.codecs import (
    CODECS,
    Codec,
    Lossless,
    LowRank,
    choose,
    encode_within,
    measure,
)

ROUNDS = 5
MIB = 2**20
#: Largest errors that ``choose`` is asked for, relative to the largest element.
RELATIVE = (0.0, 1e-3, 1e-2, 1e-1)
MIN_RATIO = 1.1
#: gzip needs seconds for what the others do in milliseconds: it gets this much of the tensor.
SLOW_BYTES = 4 * MIB


@dataclass(slots=True)
class _Row:
    """What was measured of one way to encode; speeds are GB of raw bytes a second, by round."""

    ratio: float = 0.0
    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    declared: float = 0.0
    measured: float = 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("codecs")
    group.add_argument("--codec-mib", type=int, default=32, help="size of each tensor")
    group.add_argument("--codec-rounds", type=int, default=ROUNDS)


def run(options: argparse.Namespace) -> Mapping[str, object]:
    nbytes = 2 * MIB if options.fast else options.codec_mib * MIB
    rounds = 2 if options.fast else options.codec_rounds
    results: dict[str, object] = {"rounds": rounds, "bytes": nbytes, "threads": 1}
    with _one_thread():
        results["tensors"] = {
            name: _tensor(name, tensor, rounds) for name, tensor in _tensors(nbytes)
        }
        results["low_rank"] = _low_rank(256 if options.fast else 1024)
    return results


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _tensors(nbytes: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Drawn like the real ones in what codecs see: dtype, spread, zeros, outliers, repetition."""
    numbers = torch.Generator().manual_seed(7)

    def gauss(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=numbers)

    wide = nbytes // 4
    yield "activations fp32", gauss(wide // 1024, 1024)
    yield "activations bf16", gauss(2 * wide // 1024, 1024).bfloat16()
    yield "relu fp32, half zeros", gauss(wide // 1024, 1024).relu_()
    yield "relu fp32, nine tenths zeros", gauss(wide // 1024, 1024).sub_(1.2816).relu_()
    keys = gauss(8, 2 * wide // 1024, 128)
    # Keys have a few channels that lie far out, each around a value of its own.
    keys[:, :, ::32] = keys[:, :, ::32] * 2 + 30 * gauss(8, 1, 4)
    yield "keys bf16, outlier channels", keys.bfloat16()
    centres = gauss(64, 768)
    topics = torch.randint(64, (wide // 768,), generator=numbers)
    texts = centres[topics] + 0.7 * gauss(wide // 768, 768)
    yield "text embeddings fp32", texts / texts.norm(dim=1, keepdim=True)
    yield "features fp32 from bf16", gauss(wide // 1024, 1024).bfloat16().float()
    yield "causal mask fp32", torch.ones(wide // 1024, 1024).tril_().sub_(1).mul_(1e4)
    yield "token ids int64", (gauss(wide // 2).abs() * 9000).long()


def _tensor(name: str, tensor: torch.Tensor, rounds: int) -> dict[str, object]:
    codecs = {
        key: codec
        for key, codec in {
            **CODECS,
            "zstd level 3": Lossless(3),
            "zstd level 9": Lossless(9),
        }.items()
        if key != "lowrank" and codec.supports(tensor.dtype, tuple(tensor.shape))
    }
    rows: dict[str, _Row] = {}
    refused: dict[str, str] = {}
    for at in range(rounds):
        for key, codec in codecs.items():
            if key in refused:
                continue
            try:
                _measure(rows.setdefault(key, _Row()), codec, tensor)
            except CodecError as error:
                refused[key] = error.what
                del rows[key]
        for key, rival in _rivals().items():
            slow = key in ("torch.save, gzip", "numpy.savez_compressed")
            if not slow or at == 0:
                rival(rows.setdefault(key, _Row()), tensor, SLOW_BYTES if slow else tensor.nbytes)
    _print(name, tensor, rows)
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "codecs": {key: _figures(row) for key, row in rows.items()},
        "refused": refused,
        "chosen": [_chosen(tensor, relative) for relative in RELATIVE],
    }


def _measure(row: _Row, codec: Codec, tensor: torch.Tensor) -> None:
    measured = measure(codec, tensor)
    row.ratio, row.measured = measured.ratio, measured.max_error
    row.encode.append(measured.encode_bytes_per_s / 1e9)
    row.decode.append(measured.decode_bytes_per_s / 1e9)
    if len(row.encode) == 1:
        row.declared = codec.encode(tensor).error


def _chosen(tensor: torch.Tensor, relative: float) -> dict[str, object]:
    largest = float(tensor.double().abs().max())
    started = time.perf_counter()
    codec = choose(tensor, relative * largest, MIN_RATIO)
    deciding = time.perf_counter() - started
    started = time.perf_counter()
    payload = encode_within(tensor, relative * largest, MIN_RATIO, codec=codec)
    encoding = time.perf_counter() - started
    ratio = tensor.nbytes / payload.nbytes
    print(
        f"  at most {relative:g} of the largest: {codec.name}, kept as {payload.codec}, "
        f"{ratio:.2f}x; decided in {deciding * 1e3:.1f} ms, encoded in {encoding * 1e3:.1f} ms"
    )
    return {
        "relative_error_allowed": relative,
        "chosen": codec.name,
        "kept_as": payload.codec,
        "ratio": round(ratio, 3),
        "relative_error_declared": payload.error / largest,
        "deciding_ms": round(deciding * 1e3, 2),
        "encoding_ms": round(encoding * 1e3, 2),
    }


Rival = Callable[[_Row, torch.Tensor, int], None]


def _rivals() -> dict[str, Rival]:
    compressor, decompressor = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()
    rivals: dict[str, Rival] = {
        "zstd without shuffle": _over_bytes(compressor.compress, decompressor.decompress),
        "torch.save, gzip": _over_tensor(_save_gzip, _load_gzip),
        "numpy.savez_compressed": _over_tensor(_save_npz, _load_npz),
    }
    for codec, level in (("LZ4", 5), ("ZSTD", 1), ("ZSTD", 5)):
        rivals[f"blosc2 {codec.lower()} level {level}"] = _blosc2(codec, level)
    return rivals


def _over_bytes(compress: Callable[[memoryview], bytes], expand: Callable[[bytes], Any]) -> Rival:
    def work(row: _Row, tensor: torch.Tensor, nbytes: int) -> None:
        plain = memory_of(tensor.reshape(-1).view(torch.uint8))[:nbytes]
        started = time.perf_counter()
        packed = compress(plain)
        _note(row, len(plain), len(packed), started)
        started = time.perf_counter()
        expand(packed)
        row.decode.append(len(plain) / (time.perf_counter() - started) / 1e9)

    return work


def _over_tensor(
    save: Callable[[torch.Tensor], bytes], load: Callable[[bytes], torch.Tensor]
) -> Rival:
    def work(row: _Row, tensor: torch.Tensor, nbytes: int) -> None:
        part = tensor.reshape(-1)[: nbytes // tensor.dtype.itemsize].clone()
        started = time.perf_counter()
        packed = save(part)
        _note(row, part.nbytes, len(packed), started)
        started = time.perf_counter()
        load(packed)
        row.decode.append(part.nbytes / (time.perf_counter() - started) / 1e9)

    return work


def _note(row: _Row, plain: int, packed: int, started: float) -> None:
    row.encode.append(plain / (time.perf_counter() - started) / 1e9)
    row.ratio = plain / packed


def _blosc2(codec: str, level: int) -> Rival:
    blosc2 = importlib.import_module("blosc2")

    def work(row: _Row, tensor: torch.Tensor, nbytes: int) -> None:
        def compress(plain: memoryview) -> bytes:
            packed: bytes = blosc2.compress2(
                plain,
                typesize=tensor.dtype.itemsize,
                clevel=level,
                codec=blosc2.Codec[codec],
                filters=[blosc2.Filter.SHUFFLE],
                nthreads=1,
            )
            return packed

        _over_bytes(compress, lambda packed: blosc2.decompress2(packed, nthreads=1))(
            row, tensor, nbytes
        )

    return work


def _save_gzip(tensor: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return gzip.compress(buffer.getvalue(), compresslevel=6)


def _load_gzip(packed: bytes) -> torch.Tensor:
    loaded: torch.Tensor = torch.load(io.BytesIO(gzip.decompress(packed)))
    return loaded


def _save_npz(tensor: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=tensor.view(torch.uint8).numpy())
    return buffer.getvalue()


def _load_npz(packed: bytes) -> torch.Tensor:
    return torch.from_numpy(np.load(io.BytesIO(packed))["x"])


def _low_rank(side: int) -> dict[str, object]:
    """A weight whose singular values fall off, within a hundredth of its largest element."""
    numbers = torch.Generator().manual_seed(11)
    left, right = (torch.randn(side, side, generator=numbers) for _ in range(2))
    falling = torch.arange(1, side + 1).pow(-1.5)
    weight = (left * falling) @ right
    codec = LowRank(0.01 * float(weight.abs().max()))
    row = _Row()
    _measure(row, codec, weight)
    _print(f"weight {side} x {side} of falling singular values", weight, {"lowrank": row})
    return {"side": side, "rank": codec.encode(weight).meta["rank"], **_figures(row)}


def _figures(row: _Row) -> dict[str, object]:
    return {
        "ratio": round(row.ratio, 3),
        "encode_gb_per_s": round(statistics.median(row.encode), 3),
        "decode_gb_per_s": round(statistics.median(row.decode), 3),
        "declared_error": row.declared,
        "measured_error": row.measured,
    }


def _print(name: str, tensor: torch.Tensor, rows: Mapping[str, _Row]) -> None:
    print(f"\n{name}, {tensor.nbytes / MIB:.0f} MiB")
    print(f"  {'':<24}{'ratio':>8}{'encode':>9}{'decode':>9} GB/s{'declared':>12}{'measured':>12}")
    for key, row in rows.items():
        print(
            f"  {key:<24}{row.ratio:>8.2f}{statistics.median(row.encode):>9.2f}"
            f"{statistics.median(row.decode):>9.2f}     {row.declared:>12.3g}{row.measured:>12.3g}"
        )
