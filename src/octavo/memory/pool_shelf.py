"""The manager's pools by name, each made when it is first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from octavo.errors import ConfigError
from octavo.memory.ledger import Ledger
from octavo.memory.pools import (
    Arena,
    BlockPool,
    PoolStats,
    SlotStats,
    StagingPool,
    WeightRing,
    feature_pool,
    kv_pool,
    staging_pool,
    text_pool,
    weight_ring,
)

Pool = BlockPool | Arena | WeightRing | StagingPool

#: keys and values, tokens, heads, dimensions.
_KV_BLOCK = (2, 16, 8, 128)
#: The part of the device's budget that KV blocks may take where nobody says how much.
_KV_SHARE = 4


class PoolShelf:
    """Makes pools and closes them.

    Args:
        ledger: counts their slabs.
        device: of all pools but ``staging``.
    """

    def __init__(self, ledger: Ledger, device: torch.device) -> None:
        self._ledger = ledger
        self._device = device
        self._lock = threading.Lock()
        self._pools: dict[str, Pool] = {}
        self._makers: dict[str, Callable[..., Pool]] = {
            "kv": self._kv,
            "features": self._on_device(feature_pool),
            "text": self._on_device(text_pool),
            "weights": self._on_device(weight_ring),
            "staging": partial(staging_pool, ledger),
        }

    def pool(self, name: str, options: Mapping[str, Any]) -> Pool:
        """See :meth:`MemoryManager.pool`."""
        if name not in self._makers:
            raise ConfigError(
                f"there is no pool {name!r}", next_step=f"use {', '.join(self._makers)}"
            )
        with self._lock:
            if name in self._pools and options:
                raise ConfigError(
                    f"the pool {name!r} is there already",
                    next_step="give its options at its first use",
                )
            if name not in self._pools:
                self._pools[name] = self._make(name, options)
            return self._pools[name]

    def stats(self) -> dict[str, PoolStats | SlotStats]:
        """Of the pools that were used, by name."""
        with self._lock:
            return {name: pool.stats() for name, pool in self._pools.items()}

    def close(self) -> None:
        """Gives all slabs back."""
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()

    def _make(self, name: str, options: Mapping[str, Any]) -> Pool:
        try:
            return self._makers[name](**options)
        except TypeError as error:
            raise ConfigError(
                f"the pool {name!r} cannot be made: {error}",
                next_step=f"see octavo.memory.pools for the options of {name!r}",
            ) from error

    def _kv(self, **options: Any) -> BlockPool:
        given = {
            "block_shape": _KV_BLOCK,
            "dtype": torch.float16,
            "nbytes": self._ledger.budget("device") // _KV_SHARE,
            "device": self._device,
            **options,
        }
        return kv_pool(self._ledger, **given)

    def _on_device(self, maker: Callable[..., Pool]) -> Callable[..., Pool]:
        def made(**options: Any) -> Pool:
            return maker(self._ledger, **{"device": self._device, **options})

        return made
