"""How each family's decoder takes one row of tokens of many sequences: embeddings, positions, and
the logits of some of them.

Shapes: ``t`` tokens of the row, ``p`` numbers that place one token, ``d`` width, ``l`` taps of a
tower (what goes in place of the prompt's tokens, then deepstack layers), ``v`` vocabulary, ``r``
rows of logits.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

#: Rotary frequencies that change with the longest sequence of a pass; others would change with it.
_SHIFTING: Final = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What goes through the decoder at once.

    Attributes:
        ids_t: token ids, those that stand for media included.
        positions_pt: of each token.
        seen_t: which tokens are replaced by features; None where there are none.
        features_lnd: of those, in order.
        last_r: places in the row of the tokens whose logits are wanted.
    """

    ids_t: torch.Tensor
    positions_pt: torch.Tensor
    last_r: torch.Tensor
    seen_t: torch.Tensor | None = None
    features_lnd: torch.Tensor | None = None


class Decoder(ABC):
    """Args:
    module: of transformers.
    device: of its inputs.
    """

    def __init__(self, module: nn.Module, device: torch.device | str = "cpu") -> None:
        self.module: Any = module
        self.device = torch.device(device)

    def positions(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``[p, t]``: of a prompt's tokens. A token that is added comes one after the largest."""
        return torch.arange(inputs["input_ids"].shape[1])[None]

    @abstractmethod
    def logits(self, row: Row, cache: Any) -> torch.Tensor:
        """``[r, v]`` of the tokens at ``row.last_r``."""


class TextDecoder(Decoder):
    """A causal language model."""

    def logits(self, row: Row, cache: Any) -> torch.Tensor:
        out = self.module(
            input_ids=row.ids_t[None],
            position_ids=row.positions_pt,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=row.last_r,
        )
        found: torch.Tensor = out.logits[0]
        return found


class MediaDecoder(Decoder):
    """A language model inside a model that also sees; features take the place of embeddings."""

    @property
    def language(self) -> Any:
        return self.module.model.language_model

    def logits(self, row: Row, cache: Any) -> torch.Tensor:
        embeds_td = self.module.get_input_embeddings()(row.ids_t)
        if row.features_lnd is not None and row.seen_t is not None:
            embeds_td[row.seen_t] = row.features_lnd[0].to(embeds_td.device, embeds_td.dtype)
        out = self.language(
            inputs_embeds=embeds_td[None],
            position_ids=self.placed(row.positions_pt),
            past_key_values=cache,
            use_cache=True,
            **self.extra(row),
        )
        hidden_rd = out.last_hidden_state[0, row.last_r]
        found: torch.Tensor = self.module.lm_head(hidden_rd)
        return found

    def placed(self, positions_pt: torch.Tensor) -> torch.Tensor:
        """Positions as the language model takes them."""
        return positions_pt

    def extra(self, row: Row) -> dict[str, Any]:
        """More arguments of the language model."""
        del row
        return {}


class DotsDecoder(MediaDecoder):
    """dots.ocr: the decoder is the model itself."""

    @property
    def language(self) -> Any:
        return self.module.model


class QwenDecoder(MediaDecoder):
    """Qwen2.5-VL and Qwen3-VL: positions in time, height and width."""

    def positions(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        if not any(name.endswith("_grid_thw") for name in inputs):
            return torch.arange(inputs["input_ids"].shape[1]).expand(3, -1)
        index = self.module.model.get_rope_index
        taken = inspect.signature(index).parameters
        found_3bt, _ = index(**{name: value for name, value in inputs.items() if name in taken})
        positions_pt: torch.Tensor = found_3bt[:, 0]
        return positions_pt

    def placed(self, positions_pt: torch.Tensor) -> torch.Tensor:
        return positions_pt[:, None]


class Qwen3Decoder(QwenDecoder):
    """Qwen3-VL: features of deeper layers of the tower are added in the first layers."""

    def extra(self, row: Row) -> dict[str, Any]:
        if row.features_lnd is None or row.seen_t is None:
            return {}
        return {
            "visual_pos_masks": row.seen_t[None],
            "deepstack_visual_embeds": list(row.features_lnd[1:]),
        }


#: By the family's name.
DECODERS: Final[Mapping[str, type[Decoder]]] = {
    "text": TextDecoder,
    "qwen3-vl": Qwen3Decoder,
    "qwen2.5-vl": QwenDecoder,
    "dots.ocr": DotsDecoder,
    "llava": MediaDecoder,
    "llava-next": MediaDecoder,
}


def unserved(family: str, config: Any) -> str | None:
    """Why a model's requests cannot go through one decoder together; None where they can.

    Args:
        config: transformers' configuration of the model.
    """
    if family not in DECODERS:
        return f"{family} models answer one request at a time"
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    sets = rope.values() if any(isinstance(value, dict) for value in rope.values()) else [rope]
    kinds = {one.get("rope_type") for one in sets if isinstance(one, dict)}
    if kinds & set(_SHIFTING):
        return "positions change with the longest sequence"
    if getattr(text, "attn_logit_softcapping", None) is not None:
        return "attention has a soft cap"
    return None
