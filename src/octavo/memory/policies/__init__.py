"""Eviction policies: who goes next from a tier. Pure bookkeeping, no tensors and no threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from octavo.memory.policies.adaptive import Adaptive
from octavo.memory.policies.arc import ARC
from octavo.memory.policies.base import Key, Policy
from octavo.memory.policies.belady import Belady
from octavo.memory.policies.clock import Clock
from octavo.memory.policies.cost import CostAware
from octavo.memory.policies.learned import Learned
from octavo.memory.policies.lru import LRU
from octavo.memory.policies.pinned import PinnedSet

#: A policy for a tier of so many bytes.
PolicyFactory = Callable[[int], Policy]

#: Every policy that does not need to know the future, by name.
ONLINE: Final[Mapping[str, PolicyFactory]] = MappingProxyType(
    {policy.name: policy for policy in (LRU, Clock, ARC, CostAware, PinnedSet, Learned, Adaptive)}
)

__all__ = [
    "ARC",
    "LRU",
    "ONLINE",
    "Adaptive",
    "Belady",
    "Clock",
    "CostAware",
    "Key",
    "Learned",
    "PinnedSet",
    "Policy",
    "PolicyFactory",
]
