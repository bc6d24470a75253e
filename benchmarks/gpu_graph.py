"""Decode of one token by a resident decoder: plain, as a CUDA graph, and by ``torch.compile``.

Eight layers of 8 B shape, so that compiling ends in time; what is found is the cost of starting
kernels, which is by layer. All three use transformers' static cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import torch

from benchmarks.gpu_models import SHAPE, TINY

_LAYERS: Final = 8
_HISTORY: Final = 1024
_TOKENS: Final = 16
_ROOM: Final = 64


def decode_ways(device: str, *, quick: bool) -> dict[str, Any]:
    """Milliseconds of one token, by way."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.cache_utils import StaticCache

    torch.manual_seed(0)
    shape = {**(TINY if quick else SHAPE), "num_hidden_layers": 2 if quick else _LAYERS}
    config: Any = LlamaConfig(**shape, max_position_embeddings=2 * _HISTORY)
    with torch.device(device):
        module: Any = LlamaForCausalLM(config)
    module.to(torch.bfloat16).eval().set_attn_implementation("sdpa")
    cache: Any = StaticCache(config=config, max_cache_len=_HISTORY + _ROOM)
    ids_1t = torch.zeros(1, 1, dtype=torch.long, device=device)
    places_t = torch.tensor([_HISTORY], device=device)

    def token() -> torch.Tensor:
        found: torch.Tensor = module(
            input_ids=ids_1t,
            position_ids=places_t[None],
            past_key_values=cache,
            use_cache=True,
        ).logits
        return found

    with torch.inference_mode():
        prompt_1t = torch.zeros(1, 32 if quick else _HISTORY, dtype=torch.long, device=device)
        module(input_ids=prompt_1t, past_key_values=cache, use_cache=True)
        length = int(cache.get_seq_length())

        def rewind() -> None:
            # Each call moves the cache on by a token, on the device.
            for layer in cache.layers:
                layer.cumulative_length.fill_(length)

        true = token().float()
        rewind()
        ms = {"plain": _timed(token, device)}
        failed: dict[str, str] = {}
        off: dict[str, float] = {}
        for name, make in _others(device).items():
            try:
                rewind()
                call = make(token)
                rewind()
                off[name] = float((call().float() - true).abs().max())
                ms[name] = _timed(call, device)
            # What cannot be captured or compiled here is a finding.
            except Exception as error:  # noqa: BLE001
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    sooner = {name: round(ms["plain"] / taken, 3) for name, taken in ms.items()}
    point = {"name": f"{shape['num_hidden_layers']} layers", "ms": ms, "failed": failed}
    return {"points": [{**point, "sooner_than_plain": sooner, "off_plain": off}], "note": ""}


Token = Callable[[], torch.Tensor]


def _others(device: str) -> dict[str, Callable[[Token], Token]]:
    if device == "cpu":
        return {}
    return {
        "graph": _captured,
        "compiled": lambda token: torch.compile(token, dynamic=False),
        "compiled graph": lambda token: torch.compile(token, mode="reduce-overhead"),
    }


def _captured(token: Token) -> Token:
    """A CUDA graph: after some calls on a stream of its own, as PyTorch's notes on it ask."""
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            token()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = token()

    def replay() -> torch.Tensor:
        graph.replay()
        return logits

    return replay


def _timed(call: Token, device: str) -> float:
    """The median over tokens, each waited for as a sampler would."""
    taken = []
    for _ in range(_TOKENS + 3):
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken[3:])
