"""Continuous batching against static batches of 8 and one request at a time.

48 requests with lengths like pages: prompt and answer together take 200 to 4000 tokens, half of
them below 430, a tenth above 2200. The prompt is text of Python's reference manual, the last part
of each page (a fifth, by default) is the answer. All ways answer greedily, from the same files in
the same precision; end tokens are taken out of the files, so that every answer has the planned
length.

- ``octavo``: all requests at once, through ``model.generate``.
- ``static``: transformers' ``generate``, 8 at a time in order of arrival, padded on the left,
  ``DynamicCache``; a batch runs to its longest answer.
- ``alone``: transformers' ``generate``, one after the other. Its rate does not depend on how many
  there are, so it is measured on a part that is spread over all lengths.

Rates count the tokens of answers, over the time from the first prompt to the last token. The ways
take turns from round to round; the figures are medians of the ratios of each round. ``equal`` says
of how many requests the answer is the same: in float32 every one should be; in bfloat16 two tokens
may be equally likely, and who goes first then depends on the order of sums in a batch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.batching_ways import (
    Answers,
    Page,
    alone_way,
    endless,
    octavo_way,
    pages,
    plain_module,
    static_way,
)

TARGETS: Final = {"over_static": 1.8, "over_alone": 2.5}
REAL: Final = "smollm2-135m-instruct"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("batching")
    group.add_argument("--batching-requests", type=int, default=48)
    group.add_argument("--batching-longest", type=int, default=4000, help="tokens of a page")
    group.add_argument("--batching-share", type=float, default=1 / 5, help="answer of a page")
    group.add_argument("--batching-alone", type=int, default=4, help="every so many is asked alone")
    group.add_argument("--batching-rounds", type=int, default=1)
    group.add_argument("--batching-check", type=int, default=24, help="tokens compared in float32")
    group.add_argument("--batching-models", default=f"tiny,{REAL}")
    group.add_argument("--batching-device", default="cpu")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    if options.fast:
        options.batching_requests, options.batching_longest, options.batching_rounds = 8, 200, 1
    found: dict[str, object] = {"targets": TARGETS}
    for name in options.batching_models.split(","):
        with tempfile.TemporaryDirectory() as place:
            found[name] = _measure(name, Path(place), options)
    return found


def _measure(name: str, place: Path, options: argparse.Namespace) -> dict[str, object]:
    import torch

    folder = saved(name, place / "bf16", torch.bfloat16)
    found = _timed(folder, options)
    print(f"  {name}: {found['over_static']}x static, {found['over_alone']}x alone")
    if options.batching_check:
        exact = saved(name, place / "fp32", torch.float32)
        found["equal_float32"] = _equal_float32(exact, options)
        print(f"  {name}: equal in float32: {found['equal_float32']}")
    return found


def saved(name: str, folder: Path, dtype: Any = None) -> Path:
    """A model as files that any library opens, without end tokens.

    Args:
        name: the packaged model, or a shape of a random one.
        dtype: of its weights; bfloat16 by default.
    """
    import torch

    from benchmarks.checkpoints import make

    dtype = dtype or torch.bfloat16

    if name != REAL:
        make("text", folder, name)
        _convert(folder, dtype)
    else:
        from benchmarks.kv import _smollm

        module, tokenizer = _smollm(dtype)
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    endless(folder)
    return folder


def _convert(folder: Path, dtype: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    if dtype is not torch.bfloat16:
        AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).save_pretrained(folder)


def _timed(folder: Path, options: argparse.Namespace) -> dict[str, object]:
    import torch

    import octavo

    module = plain_module(folder, torch.bfloat16, options.batching_device)
    with octavo.load(str(folder), device=options.batching_device) as model:
        warm = _shortened(_spread(_asked(model, options), options.batching_alone), 4)
        for way in _ways(model, module, warm, options).values():
            way()
        rounds = []
        for number in range(options.batching_rounds):
            asked = _asked(model, options, edition=number + 1)
            rounds.append(_round(_ways(model, module, asked, options), number))
        found = _rates(rounds) | {
            "requests": len(asked),
            "prompt_tokens": sum(len(page.ids) for page in asked.values()),
            "answer_tokens": sum(page.new for page in asked.values()),
            "asked_alone": len(_spread(asked, options.batching_alone)),
            "threads": torch.get_num_threads(),
            "stats": _stats(model),
        }
    last = rounds[-1]
    for rival in ("static", "alone"):
        found[f"equal_bfloat16_{rival}"] = _equal(last["octavo"], last[rival])
        found[rival] = dict(last[rival].facts)
    return found


def _ways(
    model: Any, module: Any, asked: Mapping[int, Page], options: argparse.Namespace
) -> dict[str, Callable[[], Answers]]:
    some = _spread(asked, options.batching_alone)
    return {
        "octavo": lambda: octavo_way(model, asked),
        "static": lambda: static_way(module, asked),
        "alone": lambda: alone_way(module, some),
    }


def _asked(model: Any, options: argparse.Namespace, edition: int = 0) -> dict[int, Page]:
    def prepare(request: Any) -> Sequence[int]:
        ids: list[int] = model.processor.prepare(request, None).inputs["input_ids"][0].tolist()
        return ids

    count, share = options.batching_requests, options.batching_share
    return dict(enumerate(pages(prepare, count, share, options.batching_longest, edition)))


def _spread(asked: Mapping[int, Page], every: int) -> dict[int, Page]:
    """One of so many, evenly over the lengths."""
    by_length = sorted(asked, key=lambda number: (asked[number].new, number))
    return {number: asked[number] for number in by_length[every // 2 :: every]}


def _shortened(asked: Mapping[int, Page], new: int) -> dict[int, Page]:
    from octavo.requests import Request

    return {
        number: Page(Request(page.request.messages, new), page.ids, new)
        for number, page in asked.items()
    }


def _round(ways: Mapping[str, Callable[[], Answers]], number: int) -> dict[str, Answers]:
    made = {}
    for name in ways if number % 2 == 0 else reversed(list(ways)):
        made[name] = ways[name]()
        print(f"    {name:>6}: {made[name].rate:7.1f} tokens/s, {made[name].seconds:.1f} s")
    return made


def _rates(rounds: Sequence[Mapping[str, Answers]]) -> dict[str, object]:
    rates = {name: [one[name].rate for one in rounds] for name in rounds[0]}
    over = {
        f"over_{rival}": [a / b for a, b in zip(rates["octavo"], rates[rival], strict=True)]
        for rival in ("static", "alone")
    }
    return {
        **{name: round(statistics.median(each), 2) for name, each in over.items()},
        "by_round": {name: [round(one, 2) for one in each] for name, each in over.items()},
        "tokens_per_s": {name: round(statistics.median(each), 1) for name, each in rates.items()},
    }


def _equal(ours: Answers, theirs: Answers) -> dict[str, float]:
    """Share of answers that are the same to the end, and of tokens before the first difference."""
    numbers = list(theirs.tokens)
    same = [list(ours.tokens[n]) == list(theirs.tokens[n]) for n in numbers]
    begins = [_common(ours.tokens[n], theirs.tokens[n]) for n in numbers]
    total = sum(len(theirs.tokens[n]) for n in numbers)
    return {
        "answers": round(sum(same) / len(same), 3),
        "tokens": round(sum(begins) / total, 3),
    }


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _equal_float32(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """All requests at once, the first tokens of each, against some of them alone."""
    import torch

    import octavo

    with octavo.load(str(folder), device=options.batching_device) as model:
        asked = _shortened(_asked(model, options), options.batching_check)
        ours = octavo_way(model, asked)
    module = plain_module(folder, torch.float32, options.batching_device)
    return _equal(ours, alone_way(module, _spread(asked, options.batching_alone)))


def _stats(model: Any) -> object:
    """What the engine counted, warm-up included."""
    return asdict(model.stats().engine)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    add_arguments(parser)
    print(json.dumps(run(parser.parse_args()), indent=1))
