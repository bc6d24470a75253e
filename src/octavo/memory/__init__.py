"""Tensors of any kind under one byte-exact budget over device, host and disk.

A library of its own: it knows nothing of models or documents. :class:`MemoryManager` joins the
parts; each part also works alone. Names are loaded when they are first used, so that what needs
no torch (policies, replay of traces) comes without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from octavo.errors import MissingDependency

if TYPE_CHECKING:
    from octavo.memory.disk import DiskTier
    from octavo.memory.entry import Terms
    from octavo.memory.ledger import Ledger, Reservation
    from octavo.memory.levels import LEVELS, PROFILES
    from octavo.memory.lifetimes import Lifetimes
    from octavo.memory.manager import MemoryManager
    from octavo.memory.pressure import PressureMonitor
    from octavo.memory.store import StoreSettings, TieredStore

__all__ = [
    "LEVELS",
    "PROFILES",
    "DiskTier",
    "Ledger",
    "Lifetimes",
    "MemoryManager",
    "PressureMonitor",
    "Reservation",
    "StoreSettings",
    "Terms",
    "TieredStore",
]

_HOMES = {
    "LEVELS": "levels",
    "PROFILES": "levels",
    "DiskTier": "disk",
    "Ledger": "ledger",
    "Lifetimes": "lifetimes",
    "MemoryManager": "manager",
    "PressureMonitor": "pressure",
    "Reservation": "ledger",
    "StoreSettings": "store",
    "Terms": "entry",
    "TieredStore": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("octavo"):
            raise
        raise MissingDependency(
            f"the memory tiers need {error.name}",
            next_step="pip install 'octavo[memory]'",
        ) from error
    return getattr(module, name)
