"""Runs a step: all its tokens in one row through the decoder, one pass over the weights.

Shapes: as in :mod:`octavo.engine.decoders`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch

from octavo.engine.decoders import Decoder, Row
from octavo.engine.packed import PackedCache

if TYPE_CHECKING:
    from octavo.engine.backend import KvBackend
    from octavo.engine.step import Slice, Step

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What of a request does not change while it is answered.

    Attributes:
        positions_pt: of the prompt's tokens, on the CPU.
        places: for each medium, the places of its tokens in the prompt, in order.
    """

    positions_pt: torch.Tensor
    places: Mapping[bytes, tuple[torch.Tensor, ...]]

    def positions(self, start: int, end: int) -> torch.Tensor:
        """``[p, t]`` from one token to another, of prompt and answer."""
        known_pt = self.positions_pt[:, start:end]
        length = self.positions_pt.shape[1]
        more = torch.arange(max(start - length, 0), max(end - length, 0))
        if not len(more):
            return known_pt
        more_pt = (self.positions_pt.max() + 1 + more).expand(len(self.positions_pt), -1)
        return torch.cat((known_pt, more_pt), 1)


class Runner:
    """Args:
    decoder: of the model.
    kv: its keys and values.
    layers: of the decoder.
    """

    def __init__(self, decoder: Decoder, kv: KvBackend, layers: int) -> None:
        self._decoder, self._kv = decoder, kv
        self._cache = PackedCache(kv, layers)
        self._device = decoder.device

    def run(
        self,
        step: Step,
        prompts: Mapping[str, Prompt],
        features: Mapping[bytes, torch.Tensor],
        then: Callable[[torch.Tensor], T],
    ) -> T:
        """What ``then`` makes of the logits ``[r, v]``, one row for each slice that samples.

        Args:
            prompts: by id of a sequence.
            features: ``[l, t, d]`` by key of a medium, for all media that the slices reach.
            then: may run out of memory too; what it changes must be changed last.

        Raises:
            BudgetExceeded, TierFull, torch.OutOfMemoryError: there is no room; the sequences are
                as they were.
        """
        row = self._row(step.slices, prompts, features)
        self._kv.begin(step)
        try:
            with torch.inference_mode():
                made = then(self._decoder.logits(row, self._cache))
        except BaseException:
            self._kv.rollback()
            raise
        self._kv.commit()
        return made

    def close(self) -> None:
        """Lets go of the model."""
        self._decoder.module = None

    def _row(
        self,
        slices: list[Slice],
        prompts: Mapping[str, Prompt],
        features: Mapping[bytes, torch.Tensor],
    ) -> Row:
        ids: list[int] = []
        positions = []
        last: list[int] = []
        seen: list[torch.Tensor] = []
        parts: list[torch.Tensor] = []
        for part in slices:
            base = len(ids) - part.start
            prompt = prompts[part.id]
            ids += part.sequence.tokens[part.start : part.end]
            positions.append(prompt.positions(part.start, part.end))
            if part.samples:
                last.append(len(ids) - 1)
            for places_n, features_lnd in _shown(part, prompt, features):
                seen.append(places_n + base)
                parts.append(features_lnd)
        seen_t, shown_lnd = self._media(len(ids), seen, parts)
        return Row(
            torch.tensor(ids, device=self._device),
            torch.cat(positions, 1).to(self._device),
            torch.tensor(last, dtype=torch.long, device=self._device),
            seen_t,
            shown_lnd,
        )

    def _media(
        self, tokens: int, seen: list[torch.Tensor], parts: list[torch.Tensor]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Which tokens of the row are features, and those in the order of the row."""
        if not parts:
            return None, None
        places_n = torch.cat(seen)
        features_lnd = torch.cat([part.to(self._device) for part in parts], 1)
        order_n = places_n.argsort()
        if not torch.equal(order_n, torch.arange(len(order_n))):
            features_lnd = features_lnd[:, order_n.to(self._device)]
        seen_t = torch.zeros(tokens, dtype=torch.bool)
        seen_t[places_n] = True
        return seen_t.to(self._device), features_lnd


def _shown(
    part: Slice, prompt: Prompt, features: Mapping[bytes, torch.Tensor]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each medium that the slice reaches: places in the prompt, and their features."""
    found = []
    for key in dict.fromkeys(medium.key for medium in part.media):
        for places_n in prompt.places[key]:
            inside_n = (places_n >= part.start) & (places_n < part.end)
            if bool(inside_n.any()):
                shown_lnd = features[key][:, inside_n.to(features[key].device)]
                found.append((places_n[inside_n], shown_lnd))
    return found
