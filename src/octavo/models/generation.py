"""Answers over transformers' own ``generate``: one request at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from octavo.models.family import Generated, Guard, Prepared, Processor
from octavo.requests import Sampling

if TYPE_CHECKING:
    from transformers import GenerationConfig


def generate(
    module: nn.Module,
    processor: Processor,
    prepared: Prepared,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    guard: Guard,
    prompt_in_output: bool = True,
) -> Generated:
    """Tokens of one answer.

    Args:
        module: a transformers model with ``generate``, in evaluation mode.
        prompt_in_output: whether ``generate`` returns the prompt before the answer; encoder-decoder
            and embedding-fed models do not.
    """
    from transformers import StoppingCriteriaList

    watch = _Watch(guard, sampling.stop, processor)
    inputs = _placed(prepared, module)
    with torch.inference_mode():
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        output_bt = module.generate(  # type: ignore[operator]
            **inputs,
            generation_config=_settings(module, processor, max_new_tokens, sampling),
            stopping_criteria=StoppingCriteriaList([watch]),
        )
    start = prepared.prompt_tokens if prompt_in_output else 0
    tokens = [int(token) for token in output_bt[0, start:]]
    ended = bool(tokens) and tokens[-1] in processor.end_tokens
    return Generated(tuple(tokens[:-1] if ended else tokens), stopped=ended or watch.stopped)


class _Watch:
    """Tells of each token and stops at a stop string or when asked to."""

    def __init__(self, guard: Guard, stop: Sequence[str], processor: Processor) -> None:
        self._guard = guard
        self._stop = stop
        self._processor = processor
        self._seen: list[int] = []
        self.stopped = False

    def __call__(self, ids_bt: torch.Tensor, _scores: Any, **_other: Any) -> torch.Tensor:
        token = int(ids_bt[0, -1])
        self._seen.append(token)
        if token not in self._processor.end_tokens:
            self._guard.token(token)
        if self._stop:
            text = self._processor.decode(self._seen)
            self.stopped = any(stop in text for stop in self._stop)
        done = self.stopped or self._guard.cancelled()
        return torch.full((ids_bt.shape[0],), done, device=ids_bt.device)


def _settings(
    module: nn.Module, processor: Processor, max_new_tokens: int, sampling: Sampling
) -> GenerationConfig:
    """The model's own settings with ours over them; greedy unless sampling is asked for."""
    import copy

    settings: Any = copy.deepcopy(module.generation_config)
    ends = sorted(processor.end_tokens)
    choice: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    if not sampling.greedy:
        choice = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
    values = {
        **choice,
        "max_new_tokens": max_new_tokens,
        "max_length": None,
        "repetition_penalty": sampling.repetition_penalty,
        "num_beams": 1,
        "eos_token_id": ends or None,
    }
    for key, value in values.items():
        setattr(settings, key, value)
    if settings.pad_token_id is None and ends:
        settings.pad_token_id = ends[0]
    wanted: GenerationConfig = settings
    return wanted


def _placed(prepared: Prepared, module: nn.Module) -> dict[str, torch.Tensor]:
    """Inputs where the module's inputs live; pixels and the like in its dtype, not single numbers
    such as seconds, which would lose digits."""
    device = next((p.device for p in module.parameters() if not p.is_meta), torch.device("cpu"))
    dtype = getattr(module, "dtype", torch.float32)
    return {
        name: value.to(device, dtype)
        if value.is_floating_point() and value.ndim > 1
        else value.to(device)
        for name, value in prepared.inputs.items()
    }
