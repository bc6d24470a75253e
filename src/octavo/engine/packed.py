"""A ``past_key_values`` for one row that holds the new tokens of many sequences.

The row goes through transformers' own modules; at attention it is handed to a
:class:`~octavo.engine.backend.KvBackend`, which knows where each sequence begins.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from octavo.engine.backend import KvBackend
from octavo.engine.cache import Handle, Padding


class PackedCache(Cache):
    """Args:
    kv: the sequences' keys and values.
    layers: of the model that have keys and values.
    """

    def __init__(self, kv: KvBackend, layers: int) -> None:
        super().__init__(layers=[PackedLayer(kv, layer) for layer in range(layers)])


class PackedLayer(CacheLayerMixin):
    """One layer of a :class:`PackedCache`; to transformers it is always empty."""

    is_croppable = False
    supports_early_init = False

    def __init__(self, kv: KvBackend, layer: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kv, self._layer = kv, layer
        self.is_sliding = False

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        del key_states, value_states
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        """A handle twice; attention itself stores what is given."""
        del args, kwargs
        self.is_initialized = True
        handle = PackedTokens(self._kv, self._layer, key_states, value_states)
        return handle, handle

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        return


class PackedTokens(Handle):
    """Keys and values ``[1, k, t, d]`` of one pass through one layer."""

    __slots__ = ("_keys", "_kv", "_layer", "_values")

    def __init__(self, kv: KvBackend, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        self._kv, self._layer = kv, layer
        self._keys, self._values = keys, values

    def attend(
        self, query_bhtd: torch.Tensor, padding: Padding | None, scale: float
    ) -> torch.Tensor:
        del padding
        return self._kv.attend(self._layer, query_bhtd, self._keys, self._values, scale)
