"""Does ``torch.compile`` pay for decoding? One engine, with its layers as written and compiled.

Tokens a second of one request and of 16 at once, through ``model.generate`` with short prompts, so
that nearly all is decoding. The two take turns; ``over_eager`` is the median of the ratios of the
rounds, above 1 where compiling pays. ``first_s`` is what the first compiled answer took beyond an
eager one, and ``pays_after`` how many tokens of one request win that back; None is never.

CUDA graphs are not part of it: a step's shapes change with who comes and goes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.batching_ways import Page, octavo_way, pages

TARGETS: Final = {"over_eager": 1.0}
_PAGE: Final = 100  # tokens of a prompt


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("compile")
    group.add_argument("--compile-models", default="smollm2-135m-instruct,0.5b")
    group.add_argument("--compile-tokens", type=int, default=48, help="of an answer")
    group.add_argument("--compile-rounds", type=int, default=5)
    group.add_argument("--compile-batch", type=int, default=16)
    group.add_argument("--compile-device", default="cpu")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    from benchmarks.batching import saved

    if options.fast:
        options.compile_models, options.compile_rounds, options.compile_tokens = "tiny", 1, 4
    found: dict[str, object] = {"targets": TARGETS}
    for name in options.compile_models.split(","):
        with tempfile.TemporaryDirectory() as place:
            found[name] = _measure(saved(name, Path(place) / "model"), options)
            print(f"  {name}: {found[name]}")
    return found


def _measure(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    import torch

    import octavo

    with octavo.load(str(folder), device=options.compile_device) as model:
        measuring = _Measuring(model, options.compile_tokens)
        return {
            "threads": torch.get_num_threads(),
            **{
                f"batch_{size}": measuring.compared(size, options.compile_rounds)
                for size in (1, options.compile_batch)
            },
        }


class _Measuring:
    def __init__(self, model: Any, tokens: int) -> None:
        self._model, self._tokens = model, tokens
        self._layers = model.family.layers(model.module, "language")
        self._editions: Iterator[int] = itertools.count()

    def compared(self, size: int, rounds: int) -> dict[str, object]:
        from octavo.engine.compile import compile_layers, undo

        self._rate(size)
        eager_s = self._seconds(size)
        compile_layers(self._layers)
        # Twice: the second time with another number of tokens, which makes shapes dynamic.
        first_s = self._seconds(size) + self._seconds(size) - 2 * eager_s
        rates: dict[str, list[float]] = {"eager": [], "compiled": []}
        for number in range(rounds):
            for way in ("eager", "compiled") if number % 2 == 0 else ("compiled", "eager"):
                undo(self._layers)
                if way == "compiled":
                    compile_layers(self._layers)
                rates[way].append(self._rate(size))
        undo(self._layers)
        ratios = [b / a for a, b in zip(rates["eager"], rates["compiled"], strict=True)]
        medians = {way: statistics.median(each) for way, each in rates.items()}
        saved_s = 1 / medians["eager"] - 1 / medians["compiled"]
        return {
            "over_eager": round(statistics.median(ratios), 3),
            "by_round": [round(ratio, 3) for ratio in ratios],
            "tokens_per_s": {way: round(rate, 1) for way, rate in medians.items()},
            "first_s": round(first_s, 1),
            "pays_after": round(first_s / saved_s) if saved_s > 0 else None,
        }

    def _rate(self, size: int) -> float:
        return size * self._tokens / self._seconds(size)

    def _seconds(self, size: int) -> float:
        """For ``size`` answers at once, to prompts that were not there before."""
        made = pages(self._ids, size, 0.05, _PAGE, next(self._editions))
        asked = {number: self._cut(page) for number, page in enumerate(made)}
        return octavo_way(self._model, asked).seconds

    def _ids(self, request: Any) -> list[int]:
        ids: list[int] = self._model.processor.prepare(request, None).inputs["input_ids"][0]
        return list(map(int, ids))

    def _cut(self, page: Page) -> Page:
        from octavo.requests import Request

        return Page(Request(page.request.messages, self._tokens), page.ids, self._tokens)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    add_arguments(parser)
    print(json.dumps(run(parser.parse_args()), indent=1))
