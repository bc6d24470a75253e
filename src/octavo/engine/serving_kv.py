"""Where an engine keeps keys and values: exact by block number, or in 8 or 4 bits, or on disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from octavo.engine.backend import KvBackend
from octavo.engine.kv_backend import SequenceKv
from octavo.engine.kv_layout import BLOCK_TOKENS, KvPrecision, KvShape, KvSizes
from octavo.engine.limits import Limits
from octavo.engine.slab import SlabKv, block_bytes
from octavo.errors import BudgetExceeded, ConfigError
from octavo.memory import DiskTier, TieredStore
from octavo.memory.ledger import Ledger, Place
from octavo.memory.sizes import parse_bytes

if TYPE_CHECKING:
    from octavo.engine.scheduler import Scheduler
    from octavo.hardware.plan import Plan

PRECISIONS: Final[tuple[KvPrecision, ...]] = get_args(KvPrecision)
#: Without a wish for more, keys and values of so many tokens are kept.
TOKENS: Final = 65_536
#: What a store of lower tiers reads and writes through, on the device and on the host.
_THROUGH: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class KvWishes:
    """
    Attributes:
        precision: ``exact``, ``int8`` or ``int4``.
        max_length: tokens of prompt and answer at most.
        disk: a folder, and bytes of it for what does not fit.

    Raises:
        ConfigError: no such keys and values can be kept.
    """

    precision: str = "exact"
    max_length: int | None = None
    disk: tuple[str | Path, int | str] | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"no precision {self.precision!r} of keys and values",
                next_step=f"use {', '.join(PRECISIONS)}",
            )
        if self.max_length is not None and self.max_length < 1:
            raise ConfigError("kv_cache_max_length must be at least 1")


@dataclass(frozen=True, slots=True, eq=False)
class KeptKv:
    """
    Attributes:
        kv: where keys and values lie.
        limits: of steps, with as many sequences as there is room for.
        parked_blocks: of sequences that gave way, on a lower tier.
    """

    kv: KvBackend
    limits: Limits
    parked_blocks: int = 0

    def follow(self, scheduler: Scheduler) -> None:
        """Has the scheduler told of keys and values that had to go."""
        if isinstance(self.kv, SequenceKv):
            self.kv.on_lost = scheduler.lose


def keep_kv(
    ledger: Ledger,
    plan: Plan,
    shape: KvShape,
    wishes: KvWishes,
    room: int,
    device: str,
    limits: Limits,
) -> KeptKv:
    """
    Args:
        room: bytes of the device's memory.
        limits: of steps; fewer sequences at a time are taken where their newest tokens, which
            stay exact, would not fit.

    Raises:
        BudgetExceeded: the ledger has no room, or ``room`` holds too little.
    """
    place: Place = "host" if plan.device == "cpu" else "device"
    tokens = max(plan.kv_tokens * plan.batch, TOKENS, wishes.max_length or 0)
    if wishes.precision == "exact" and wishes.disk is None:
        fewest = -(-plan.kv_tokens // BLOCK_TOKENS) * plan.batch
        most = min(room // block_bytes(shape), -(-tokens // BLOCK_TOKENS))
        slab = SlabKv(ledger, shape, blocks=max(most, fewest), device=device, place=place)
        return KeptKv(slab, limits)
    sizes = KvSizes(shape, wishes.precision)  # type: ignore[arg-type]
    if wishes.disk is None:
        return _fitted(
            limits,
            lambda fewer: SequenceKv(
                ledger,
                sizes,
                budget=min(room, 2 * sizes.nbytes_for(tokens, fewer.max_running)),
                sequences=fewer.max_running,
                step_tokens=fewer.max_tokens_per_step,
                device=device,
                place=place,
            ),
        )
    return _with_disk(ledger, sizes, wishes.disk, room, device, place, limits)


def _with_disk(
    ledger: Ledger,
    sizes: KvSizes,
    disk: tuple[str | Path, int | str],
    room: int,
    device: str,
    place: Place,
    limits: Limits,
) -> KeptKv:
    nbytes = parse_bytes(disk[1], name="kv_disk")
    held = ledger.reserve(place, "staging", 2 * _THROUGH, "keys and values to and from disk")
    own = Ledger({"device": _THROUGH, "host": _THROUGH, "disk": nbytes})
    tier = DiskTier(Path(disk[0]), own)
    try:
        store = TieredStore(own, disk=tier)
        return _fitted(
            limits,
            lambda fewer: StoredKv(
                ledger,
                sizes,
                budget=max(room - 2 * _THROUGH, 0),
                sequences=fewer.max_running,
                step_tokens=fewer.max_tokens_per_step,
                store=store,
                lower_bytes=nbytes // 2,
                parked_bytes=nbytes // 2,
                device=device,
                place=place,
            ).closing(store.close, held.release),
        )
    except BaseException:
        tier.close()
        held.release()
        raise


class StoredKv(SequenceKv):
    """With a store of its own."""

    _after: tuple[Callable[[], object], ...] = ()

    def closing(self, *after: Callable[[], object]) -> StoredKv:
        """Calls these when it is closed."""
        self._after = after
        return self

    def close(self) -> None:
        super().close()
        after, self._after = self._after, ()
        for call in after:
            call()


def _fitted(limits: Limits, make: Callable[[Limits], SequenceKv]) -> KeptKv:
    """As many sequences at a time, and then as large a step, as there is room for."""
    while limits.max_running > 1 or limits.prefill_chunk > BLOCK_TOKENS:
        with suppress(BudgetExceeded):
            return _made(limits, make)
        if limits.max_running > 1:
            limits = replace(limits, max_running=limits.max_running // 2)
        else:
            chunk = max(limits.prefill_chunk // 2, BLOCK_TOKENS)
            limits = replace(limits, prefill_chunk=chunk, max_tokens_per_step=chunk)
    return _made(limits, make)


def _made(limits: Limits, make: Callable[[Limits], SequenceKv]) -> KeptKv:
    kv = make(limits)
    return KeptKv(kv, limits, kv.parked_blocks)
