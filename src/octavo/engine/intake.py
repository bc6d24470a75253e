"""From a request to what the engine runs: tensors, positions, keys of media. In the caller's
thread, while the engine computes for others."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from octavo.engine.features import FeatureKey
from octavo.engine.live import Live
from octavo.engine.runner import Prompt
from octavo.engine.sampling import Chooser
from octavo.engine.sequence import Job, Media
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.engine.decoders import Decoder
    from octavo.engine.features_mark import ModelMark
    from octavo.engine.tower import Medium, Tower
    from octavo.models.family import Guard, Prepared, Processor
    from octavo.models.model import Model
    from octavo.requests import Completion, Request


@dataclass(slots=True, eq=False)
class Intake:
    """
    Args:
        model: whose requests they are.
        tower: of its family; None where it takes text alone.
        mark: names the model in keys of features.
        feature_bytes: of one token of a medium, all taps together.
        max_length: tokens of prompt and answer at most; None is what the cache holds.
    """

    model: Model
    decoder: Decoder
    tower: Tower | None
    mark: ModelMark
    feature_bytes: int
    max_length: int | None = None
    _numbers: Any = field(default_factory=itertools.count, init=False)

    def take(self, request: Request, guard: Guard, done: Callable[[Completion], None]) -> Live:
        """
        Raises:
            OctavoError: the request cannot be answered.
        """
        began = time.perf_counter()
        model = self.model
        model.check(request)
        prepared = model.processor.prepare(request, model.media)
        self._check_length(prepared.prompt_tokens + request.max_new_tokens, request.id)
        model.need(request.mode)
        ids = tuple(prepared.inputs["input_ids"][0].tolist())
        media = self._media(prepared)
        job = Job(
            id=f"{next(self._numbers)} {request.id}",
            tokens=ids,
            max_new_tokens=request.max_new_tokens,
            media=tuple(sorted((one for one, _, _ in media), key=lambda one: one.start)),
            priority=request.priority,
            deadline=None if request.deadline is None else time.monotonic() + request.deadline,
            keep=request.keep,
        )
        places: dict[bytes, tuple[torch.Tensor, ...]] = {}
        for one, places_n, _ in media:
            places[one.key] = (*places.get(one.key, ()), places_n)
        return Live(
            request=request,
            guard=guard,
            done=done,
            prepared=prepared,
            job=job,
            prompt=Prompt(self.decoder.positions(prepared.inputs), places),
            media=_by_key(media),
            reopen=lambda: _by_key(self._media(model.processor.prepare(request, model.media))),
            chooser=self._chooser(request, model.processor, ids),
            timings={"prepare": time.perf_counter() - began},
        )

    def _check_length(self, tokens: int, request_id: str) -> None:
        if self.max_length is not None and tokens > self.max_length:
            raise ConfigError(
                f"prompt and answer are {tokens} tokens, kv_cache_max_length is {self.max_length}",
                where=request_id,
                next_step="ask for fewer new tokens, give less, or load with more",
            )

    def _media(self, prepared: Prepared) -> list[tuple[Media, torch.Tensor, Medium]]:
        """Each medium as the scheduler sees it, the places of its tokens, and its pixels."""
        if self.tower is None:
            return []
        module, ids_1t = self.model.module, prepared.inputs["input_ids"]
        found = self.tower.media(module, prepared.inputs)
        spots = {
            kind: (ids_1t[0] == token).nonzero().flatten()
            for kind, token in self.tower.placeholders(module).items()
        }
        done = dict.fromkeys(spots, 0)
        made = []
        for medium in found:
            start = done[medium.kind]
            done[medium.kind] = start + medium.tokens
            places_n = spots[medium.kind][start : start + medium.tokens]
            first, end = int(places_n[0]), int(places_n[-1]) + 1
            key = FeatureKey.of(medium, self.mark).digest
            nbytes = medium.tokens * self.feature_bytes
            made.append((Media(first, end - first, key, nbytes), places_n, medium))
        return made

    def _chooser(self, request: Request, processor: Processor, ids: tuple[int, ...]) -> Chooser:
        matcher = None
        if request.response is not None:
            from octavo.models.constraints import grammars_of

            grammars = grammars_of(processor.tokenizer, processor.end_tokens)
            matcher = grammars.matcher(request.response)
        own = self.model.module.generation_config
        return Chooser(own, processor, request, ids, matcher, device=self.decoder.device)


def _by_key(media: list[tuple[Media, torch.Tensor, Medium]]) -> dict[bytes, Medium]:
    return {one.key: medium for one, _, medium in media}
