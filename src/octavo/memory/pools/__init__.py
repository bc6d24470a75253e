"""Pools: few slabs that live long, for tensors that come and go.

====================  =========================================================================
:class:`BlockPool`    equal blocks with reference counts and numbers: paged KV
:class:`Arena`        tensors of any size: features, text embeddings
:class:`WeightRing`   slots between loaders and a consumer, in order: streamed weights
:class:`StagingPool`  aligned buffers on the way between disk, host and device
====================  =========================================================================

Every slab is in the ledger from before it is allocated until after it is freed. Activations stay
with torch's allocator: a pool over it would only strand memory.
"""

from octavo.memory.pools.arena import Arena
from octavo.memory.pools.blocks import BlockPool
from octavo.memory.pools.handles import Allocation, Blocks
from octavo.memory.pools.kinds import feature_pool, kv_pool, staging_pool, text_pool, weight_ring
from octavo.memory.pools.parts import Fence, Part
from octavo.memory.pools.ring import Filling, Loaded, WeightRing
from octavo.memory.pools.staging import Staged, StagingPool
from octavo.memory.pools.stats import BlockStats, PoolStats, SlotStats

__all__ = [
    "Allocation",
    "Arena",
    "BlockPool",
    "BlockStats",
    "Blocks",
    "Fence",
    "Filling",
    "Loaded",
    "Part",
    "PoolStats",
    "SlotStats",
    "Staged",
    "StagingPool",
    "WeightRing",
    "feature_pool",
    "kv_pool",
    "staging_pool",
    "text_pool",
    "weight_ring",
]
