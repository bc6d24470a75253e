"""How a tiered store works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from octavo.memory.encoder import Encoding
from octavo.memory.policies import LRU
from octavo.memory.policies.base import Policy


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How a store works; none of it changes what comes back.

    Attributes:
        device_policy, host_policy, disk_policy: who goes next from each tier.
        encoding: of values on their way down.
        movers: threads per tier that encode and write; as many more fetch ahead.
        lookahead: keys that are fetched ahead of a predictor; 0 for none.
    """

    device_policy: Callable[[int], Policy] = LRU
    host_policy: Callable[[int], Policy] = LRU
    disk_policy: Callable[[int], Policy] = LRU
    encoding: Encoding = field(default_factory=Encoding)
    movers: int = 2
    lookahead: int = 4
