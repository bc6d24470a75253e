"""Answers over transformers' own ``generate``: one request at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from octavo.models.constraints import Held
from octavo.models.family import Generated, Guard, Prepared, Processor
from octavo.models.loops import Loops
from octavo.models.streamed import Text
from octavo.requests import Sampling

if TYPE_CHECKING:
    from transformers import GenerationConfig

#: Settings of a model for generation that a request decides, or that change what ``generate`` is.
_NOT_THE_MODELS: Final = (
    *("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p"),
    *("epsilon_cutoff", "eta_cutoff", "num_beams", "num_beam_groups", "diversity_penalty"),
    *("constraints", "force_words_ids", "early_stopping", "length_penalty", "low_memory"),
    *("num_return_sequences", "return_dict_in_generate", "output_scores", "output_logits"),
    *("output_attentions", "output_hidden_states", "max_length", "max_time", "min_length"),
    *("stop_strings", "token_healing", "guidance_scale", "watermarking_config"),
    *("penalty_alpha", "dola_layers", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
    *("assistant_early_exit", "use_model_defaults"),
)


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
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    # Before chance: what may not come takes no part in top-p and top-k.
    held = None if guard.matcher is None else Held([guard.matcher()])
    watch = _Watch(guard, sampling, processor, held)
    inputs = _placed(prepared, module)
    chance = [] if sampling.greedy else [Chance(sampling)]
    model: Any = module
    own = model.generation_config
    # What is None in the settings of a call would be taken from the model's.
    model.generation_config = GenerationConfig()
    try:
        with torch.inference_mode():
            output_bt = model.generate(
                **inputs,
                **_cache(prepared, max_new_tokens, guard),
                generation_config=settings_for(own, processor, max_new_tokens, sampling),
                logits_processor=LogitsProcessorList([*([held] if held else []), *chance]),
                stopping_criteria=StoppingCriteriaList([watch]),
            )
    finally:
        model.generation_config = own
    start = prepared.prompt_tokens if prompt_in_output else 0
    tokens = [int(token) for token in output_bt[0, start:]]
    ended = bool(tokens) and tokens[-1] in processor.end_tokens
    said = tuple(tokens[:-1] if ended else tokens)
    return Generated(said, stopped=ended or watch.stopped, looped=watch.looped)


def _cache(prepared: Prepared, max_new_tokens: int, guard: Guard) -> dict[str, Any]:
    if guard.cache is None:
        return {}
    return {"past_key_values": guard.cache(prepared.prompt_tokens + max_new_tokens)}


class Chance:
    """Draws from the likeliest tokens, with random numbers of its own: an answer with a seed is the
    same whatever else draws in this process, and draws of others are not disturbed.

    The largest of scores to which Gumbel noise was added is a draw from their softmax (Gumbel 1954,
    "Statistical theory of extreme values"), so what takes the likeliest token takes the drawn one.
    """

    def __init__(self, sampling: Sampling) -> None:
        from transformers import TopKLogitsWarper, TopPLogitsWarper

        self._temperature = sampling.temperature
        self._seed = sampling.seed
        self._generator: torch.Generator | None = None
        self._narrow: list[Any] = []
        if sampling.top_k:
            self._narrow.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._narrow.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, ids_bt: torch.Tensor, scores_bv: torch.Tensor) -> torch.Tensor:
        # The likeliest is 0, so that no temperature makes it infinite.
        scores_bv = (scores_bv - scores_bv.max(-1, keepdim=True).values) / self._temperature
        for narrow in self._narrow:
            scores_bv = narrow(ids_bt, scores_bv)
        noise_bv = torch.empty_like(scores_bv, dtype=torch.float32)
        noise_bv.exponential_(generator=self._of(scores_bv.device))
        return scores_bv - noise_bv.clamp_min_(torch.finfo(torch.float32).tiny).log_()

    @property
    def place(self) -> torch.Tensor | None:
        """How far its random numbers are; None before the first."""
        return None if self._generator is None else self._generator.get_state()

    def back(self, place: torch.Tensor | None) -> None:
        """Draws again what was drawn since ``place`` was asked for."""
        if self._generator is None or place is None:
            self._generator = None
        else:
            self._generator.set_state(place)

    def _of(self, device: torch.device) -> torch.Generator:
        if self._generator is None:
            self._generator = torch.Generator(device)
            if self._seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(self._seed)
        return self._generator


class _Watch:
    """Tells of each token and stops at a stop string or when asked to."""

    def __init__(
        self, guard: Guard, sampling: Sampling, processor: Processor, held: Held | None
    ) -> None:
        self._guard = guard
        self._held = held
        self._stop = sampling.stop
        self._loops = Loops(sampling.loop_limit) if sampling.loop_limit else None
        self._processor = processor
        self._text = Text(processor.decode)
        self.stopped = self.looped = False

    def __call__(self, ids_bt: torch.Tensor, _scores: Any, **_other: Any) -> torch.Tensor:
        token = int(ids_bt[0, -1])
        if token not in self._processor.end_tokens:
            self._guard.token(token)
            self.looped = self._loops is not None and self._loops.came(token)
        if self._stop:
            text = self._text.add(token)
            self.stopped = any(stop in text for stop in self._stop)
        if self._held is not None:
            # Nothing more can come: the end token need not be computed.
            self.stopped = self.stopped or self._held.over(ids_bt)[0]
        done = self.stopped or self.looped or self._guard.cancelled()
        return torch.full((ids_bt.shape[0],), done, device=ids_bt.device)


def settings_for(
    own: GenerationConfig, processor: Processor, max_new_tokens: int, sampling: Sampling
) -> GenerationConfig:
    """The model's own settings with ours over them: which tokens it may say stays its own, how they
    are searched and when it ends is the request's."""
    import copy

    settings: Any = copy.deepcopy(own)
    ends = sorted(processor.end_tokens)
    values: dict[str, Any] = {
        **dict.fromkeys(_NOT_THE_MODELS),
        "do_sample": False,
        "max_new_tokens": max_new_tokens,
        "repetition_penalty": sampling.repetition_penalty,
        "eos_token_id": ends or None,
    }
    if settings.min_new_tokens is not None:
        values["min_new_tokens"] = min(settings.min_new_tokens, max_new_tokens)
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
        name: value
        if not isinstance(value, torch.Tensor)  # features in place of pixels, ready to use
        else value.to(device, dtype)
        if value.is_floating_point() and value.ndim > 1
        else value.to(device)
        for name, value in prepared.inputs.items()
    }
