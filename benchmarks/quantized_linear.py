"""Linear layers in 8 and 4 bits against torchao, bitsandbytes and plain bfloat16.

One layer of the shape of a feed-forward projection. For each way: bytes held, how far the
weights are from what was given (relative, in float64), seconds of a product with one token and
with many, and how fast bfloat16 rows are quantized. Rounds go through all ways in turn, each way
in the same process; the fastest of a round's repetitions counts, and the median over rounds is
reported, so that what else the machine does hits all alike. Rivals that are not installed are
left out and named.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from octavo.hardware.spec import Precision
from octavo.models.quantized import QuantizedLinear

ROUNDS: Final = 5
TOKENS: Final = (1, 16, 256)
#: Outputs, inputs.
SHAPE: Final = (8192, 2048)
_FAST_SHAPE: Final = (512, 256)
_SECONDS: Final = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """How a weight is held: ``layer`` computes, ``weight`` gives it back in float64, ``fill``
    quantizes it anew; None where there is no separate step."""

    layer: nn.Module
    weight: Callable[[], torch.Tensor]
    nbytes: int
    fill: Callable[[], object] | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("quantized")
    group.add_argument("--quantized-rounds", type=int, default=ROUNDS)


def run(options: argparse.Namespace) -> Mapping[str, object]:
    rounds = 1 if options.fast else options.quantized_rounds
    shape = _FAST_SHAPE if options.fast else SHAPE
    measured: dict[str, object] = {"rounds": rounds, "shape": list(shape), "tokens": list(TOKENS)}
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for compute in (torch.bfloat16, torch.float32):
                name = f"{str(compute).rpartition('.')[2]}, {threads} thread{'s'[: threads - 1]}"
                measured[name] = _compare(name, shape, compute, rounds)
    finally:
        torch.set_num_threads(before)
    return measured


def _compare(
    name: str, shape: tuple[int, int], compute: torch.dtype, rounds: int
) -> dict[str, object]:
    draw = torch.Generator().manual_seed(0)
    weight = (torch.randn(shape, generator=draw) * 0.02).to(torch.bfloat16)
    inputs = {count: torch.randn(count, shape[1], generator=draw).to(compute) for count in TOKENS}
    ways, absent = _ways(weight, compute)
    seconds: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    with torch.inference_mode():
        for _ in range(rounds):
            for label, way in ways.items():
                for count, x in inputs.items():
                    _add(seconds[label], f"{count} tokens, ms", 1e3 * _best(way.layer, x))
                if way.fill is not None:
                    speed = weight.nbytes / 1e9 / _best(way.fill)
                    _add(seconds[label], "filled, GB/s of bf16", speed)
    exact = weight.double()
    report: dict[str, dict[str, float]] = {}
    for label, way in ways.items():
        far = float((way.weight() - exact).norm() / exact.norm())
        report[label] = {
            "bytes a weight": round(way.nbytes / weight.numel(), 4),
            "relative error": round(far, 6),
            **{key: round(statistics.median(all_), 4) for key, all_ in seconds[label].items()},
        }
    _print(name, report, absent)
    return {"median": report, "ratio": _ratios(report), "rounds": seconds, "absent": absent}


#: Ours → the rivals that hold a weight in as many bits.
_RIVALS: Final = {
    "octavo int8": ("plain", "torchao int8", "bitsandbytes int8"),
    "octavo int4": ("plain", "bitsandbytes nf4"),
}


def _ratios(report: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Ours over the rival's, by figure; under 1 is less."""
    return {
        f"{ours} / {rival}": {
            key: round(report[ours][key] / value, 3)
            for key, value in report[rival].items()
            if key in report[ours] and value
        }
        for ours, rivals in _RIVALS.items()
        for rival in rivals
        if rival in report
    }


def _ways(weight: torch.Tensor, compute: torch.dtype) -> tuple[dict[str, Way], list[str]]:
    ways = {"plain": _plain(weight, compute)}
    for precision in (Precision.INT8, Precision.INT4):
        ways[f"octavo {precision}"] = _ours(weight, precision, compute)
    absent: list[str] = []
    rivals: dict[str, Callable[[torch.Tensor, torch.dtype], Way]] = {
        "torchao int8": _torchao,
        "bitsandbytes int8": _bitsandbytes_int8,
        "bitsandbytes nf4": _bitsandbytes_nf4,
    }
    for label, make in rivals.items():
        if label == "bitsandbytes int8" and compute is not torch.bfloat16:
            continue  # it computes in 16 bits and quantizes inputs, too
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ways[label] = make(weight, compute)
        except ImportError:
            absent.append(label)
    return ways, absent


def _linear(weight: torch.Tensor, compute: torch.dtype) -> nn.Linear:
    rows, columns = weight.shape
    linear = nn.Linear(columns, rows, bias=False, dtype=compute, device="meta")
    linear.weight = nn.Parameter(weight.to(compute), requires_grad=False)
    return linear


def _plain(weight: torch.Tensor, compute: torch.dtype) -> Way:
    linear = _linear(weight, compute)
    return Way(linear, linear.weight.double, linear.weight.nbytes, None)


def _ours(weight: torch.Tensor, precision: Precision, compute: torch.dtype) -> Way:
    rows, columns = weight.shape
    layer = QuantizedLinear.empty(rows, columns, False, precision, compute)
    layer.fill(0, weight)
    held = QuantizedLinear.empty(rows, columns, False, precision, torch.float32)
    held.load_state_dict(layer.state_dict())
    return Way(
        layer, lambda: held.dequantized().double(), layer.nbytes, lambda: layer.fill(0, weight)
    )


def _torchao(weight: torch.Tensor, compute: torch.dtype) -> Way:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    def make() -> nn.Module:
        module = nn.Sequential(_linear(weight, compute))
        quantize_(module, Int8WeightOnlyConfig())
        return module

    made = make()
    held: Any = made[0].weight  # type: ignore[index]
    parts = [getattr(held, name) for name in held.__tensor_flatten__()[0]]
    nbytes = sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))
    return Way(made, lambda: held.dequantize().double(), nbytes, make)


def _bitsandbytes_int8(weight: torch.Tensor, compute: torch.dtype) -> Way:
    import bitsandbytes as bnb

    rows, columns = weight.shape

    def make() -> Any:
        layer = bnb.nn.Linear8bitLt(columns, rows, bias=False, has_fp16_weights=False)
        layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        return layer.to("cpu")

    made = make()
    made(torch.zeros(1, columns, dtype=compute))  # the first call lays it out
    scales = made.state.SCB
    held = made.weight.data
    return Way(
        made,
        lambda: held.double() * scales.double()[:, None] / 127,
        held.nbytes + scales.nbytes,
        make,
    )


def _bitsandbytes_nf4(weight: torch.Tensor, compute: torch.dtype) -> Way:
    import bitsandbytes as bnb
    from bitsandbytes import functional

    rows, columns = weight.shape

    def make() -> Any:
        layer = bnb.nn.Linear4bit(
            columns, rows, bias=False, compute_dtype=compute, quant_type="nf4"
        )
        layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
        return layer.to("cpu")

    made = make()
    state = made.weight.quant_state
    # Before the first call, which may lay it out for its kernel.
    back = functional.dequantize_4bit(made.weight.data, state).double()
    nbytes = made.weight.nbytes + state.absmax.nbytes
    return Way(made, lambda: back, nbytes, make)


def _best(call: Callable[..., object], *given: object) -> float:
    """Seconds of the fastest of many calls."""
    call(*given)
    best, end = float("inf"), time.perf_counter() + _SECONDS
    while (start := time.perf_counter()) < end:
        call(*given)
        best = min(best, time.perf_counter() - start)
    return best


def _add(kept: dict[str, list[float]], name: str, value: float) -> None:
    kept.setdefault(name, []).append(value)


def _print(name: str, report: Mapping[str, Mapping[str, float]], absent: list[str]) -> None:
    print(f"\n{name}")
    columns = list(report["octavo int8"])
    print(f"  {'':<20}" + "".join(f"{column:>22}" for column in columns))
    for label, row in report.items():
        cells = (f"{row[column]:>22.4f}" if column in row else f"{'':>22}" for column in columns)
        print(f"  {label:<20}" + "".join(cells))
    if absent:
        print(f"  not installed: {', '.join(absent)}")
