"""One object that joins the parts: ledger, store, pools, lifetimes, prediction, pressure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

import torch

from octavo.errors import ConfigError
from octavo.memory.buffers import return_freed_memory
from octavo.memory.disk import DiskTier
from octavo.memory.encoder import Encoding
from octavo.memory.entry import Entry, Terms
from octavo.memory.ledger import KINDS, PLACES, Kind, Ledger, Place
from octavo.memory.levels import LEVELS, PROFILES, Level, LevelName, Profile
from octavo.memory.lifetimes import Leak, Lifetimes, class_of
from octavo.memory.manager_stats import ManagerStats, explained
from octavo.memory.policies import ONLINE
from octavo.memory.policies.base import Key
from octavo.memory.pool_shelf import Pool, PoolShelf
from octavo.memory.pools import Arena, BlockPool, StagingPool, WeightRing
from octavo.memory.prediction import LearnedOrder, Schedule
from octavo.memory.pressure import Pressure, PressureMonitor
from octavo.memory.reconcile import Reconciliation, reconcile, sample
from octavo.memory.sizes import parse_bytes
from octavo.memory.split import SplitStore
from octavo.memory.store import TieredStore
from octavo.memory.store_settings import StoreSettings
from octavo.memory.trace import Access, Op, TraceWriter

#: Under pressure so much of a budget stays free for values on their way through.
_PASSAGE = 16

#: Hits between questions to a learned order.
_ASKED = 8

_MISSING: Any = object()

_RANK = {"drop-first": 0, "demote": 1, "keep": 2}


class MemoryManager(MutableMapping[Key, torch.Tensor]):
    """Tensors under one budget over device, host and disk.

    Args:
        device: budget of the top tier, whose tensors are ready to use: bytes or ``"4GB"``. On a
            machine without an accelerator it is main memory, beside ``host``.
        host: budget of encoded copies in main memory.
        disk: a folder and its budget; None for no disk tier.
        level: ``minimal``, ``balanced`` or ``aggressive``; see :mod:`octavo.memory.levels`.
        profile: ``laptop`` for budgets and limits of a small machine; what is given beside it
            counts more.
        on: the device; the accelerator that torch finds, or the CPU.
        keep: whether values on the disk outlive the process; :meth:`close` then writes all.
        max_tensor: bytes over which a tensor is kept in parts.
        trace: a file to record every access in, for ``octavo memory replay``.

    Raises:
        ConfigError: a size, level or profile that does not exist.
        TierError: the disk folder cannot be used.
    """

    def __init__(
        self,
        *,
        device: int | str | None = None,
        host: int | str | None = None,
        disk: tuple[str | Path, int | str] | None = None,
        level: LevelName | None = None,
        profile: str | None = None,
        on: torch.device | str | None = None,
        keep: bool = False,
        max_tensor: int | str | None = None,
        trace: str | Path | None = None,
    ) -> None:
        limits = _profile(profile)
        self.level = _level(level or (limits.level if limits else "balanced"))
        self.device = torch.device(on) if on is not None else _accelerator()
        self.ledger = Ledger(
            {
                "device": _size(device, "device", limits.device if limits else 0),
                "host": _size(host, "host", limits.host if limits else 0),
                "disk": parse_bytes(disk[1], name="disk") if disk else 0,
            }
        )
        return_freed_memory()
        self._baseline = sample(self.device)
        tier = DiskTier(Path(disk[0]), self.ledger, keep=keep) if disk else None
        self._store = TieredStore(
            self.ledger, device=self.device, disk=tier, settings=_settings(self.level, self.device)
        )
        self._disk = tier
        largest = max_tensor if max_tensor is not None else limits and limits.max_tensor
        self._values: TieredStore | SplitStore = (
            SplitStore(self._store, parse_bytes(largest, name="max_tensor"))
            if largest
            else self._store
        )
        self._pools = PoolShelf(self.ledger, self.device)
        self._lifetimes = Lifetimes(self._free)
        self._watching = False
        self._trace = TraceWriter(Path(trace)) if trace is not None else None
        if trace is not None:
            self._watch()
        if self.level.learn:
            self._store.follow(LearnedOrder(), every=_ASKED)
        self._full_budgets = {place: self.ledger.budget(place) for place in PLACES}
        self._monitor = PressureMonitor(self._relieve) if self.level.watch_pressure else None
        if self._monitor is not None:
            self._monitor.start()

    # The mapping.

    def __getitem__(self, key: Key) -> torch.Tensor:
        """The value on the device; see :meth:`TieredStore.__getitem__` for errors."""
        return self._values[key]

    def __setitem__(self, key: Key, tensor: torch.Tensor) -> None:
        self.put(key, tensor)

    def put(
        self,
        key: Key,
        tensor: torch.Tensor,
        *,
        kind: Kind | None = None,
        owner: str | None = None,
        max_error: float = 0.0,
        cost: float | None = None,
        droppable: bool = False,
    ) -> None:
        """Stores a value under terms of its own.

        Args:
            key: any hashable; of a tuple, the first item says its class.
            tensor: not to be changed in place afterwards.
            kind: in the ledger; the key's class where that is a kind, else ``features``.
            owner: in the ledger and in reports; the key's class.
            max_error: how far any element may be off when it comes back; 0.0 is exact.
            cost: seconds to make the value again.
            droppable: whether it may go when the lowest tier is full.

        Raises:
            BudgetExceeded, TierFull: no tier has room; the value before is still there.
        """
        group = class_of(key)
        terms = Terms(
            kind=kind or _kind(group),
            owner=owner or group,
            max_error=max_error,
            cost=cost,
            droppable=droppable,
        )
        self._values.put(key, tensor, terms)

    def pop(self, key: Key, /, default: Any = _MISSING) -> Any:
        """Reads and deletes a value; one that comes meanwhile under the same key stays."""
        return self._values.pop(key) if default is _MISSING else self._values.pop(key, default)

    def clear(self) -> None:
        """Deletes all values without reading them."""
        self._values.clear()

    def __delitem__(self, key: Key) -> None:
        del self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[Key]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    # More than a mapping.

    def parts(self, key: Key) -> Iterator[torch.Tensor]:
        """The value piece by piece, none over ``max_tensor`` bytes; whole without that limit."""
        if isinstance(self._values, SplitStore):
            yield from self._values.parts(key)
        else:
            yield self._values[key]

    def pinned(self, key: Key) -> AbstractContextManager[torch.Tensor]:
        """The value, which stays in the device tier meanwhile."""
        return self._values.pinned(key)

    @overload
    def pool(self, name: Literal["kv"], **options: Any) -> BlockPool: ...

    @overload
    def pool(self, name: Literal["features", "text"], **options: Any) -> Arena: ...

    @overload
    def pool(self, name: Literal["weights"], **options: Any) -> WeightRing: ...

    @overload
    def pool(self, name: Literal["staging"], **options: Any) -> StagingPool: ...

    def pool(self, name: str, **options: Any) -> Pool:
        """The pool of that name, made at its first use with ``options``.

        Options are those of ``kv_pool``, ``feature_pool``, ``text_pool``, ``weight_ring`` and
        ``staging_pool`` in :mod:`octavo.memory.pools`. Without any, ``kv`` has blocks of 16
        tokens, 8 heads and 128 dimensions in 16 bits over a quarter of the device's budget.

        Raises:
            ConfigError: no such pool, options that it does not know, or options for a pool that
                is there already.
        """
        return self._pools.pool(name, options)

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Starts bringing values to the device and returns at once."""
        self._values.prefetch(keys)

    def schedule(self, keys: Iterable[Key] | None, *, cyclic: bool = False) -> None:
        """Makes the order of the coming reads known, so that each is there before its use.

        Args:
            keys: in the order of their use; None ends it.
            cyclic: whether the order begins again after its end.
        """
        if keys is not None:
            self._store.follow(Schedule(list(keys), cyclic=cyclic))
        else:
            self._store.follow(LearnedOrder() if self.level.learn else None, every=_ASKED)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Names what the program does meanwhile, so that last uses can be learned."""
        self._watch()
        self._store.advise(self._advice)
        # Uses are told in batches; each belongs to the phase in which it happened.
        self._store.settle()
        with self._lifetimes.phase(name):
            try:
                yield
            finally:
                self._store.settle()

    @property
    def lifetimes(self) -> Lifetimes:
        """References and phases of values. Uses are counted from the first time it is asked."""
        self._watch()
        return self._lifetimes

    def empty(
        self, shape: Sequence[int], dtype: torch.dtype, *, owner: str = "caller"
    ) -> torch.Tensor:
        """A new tensor on the device that is in the budget from the start.

        For values that are made in place: putting it takes its bytes over; until then they are
        reserved for as long as anybody holds it.

        Raises:
            BudgetExceeded: the device has no room for it.
        """
        return self._store.borrow(tuple(shape), dtype, owner=owner)

    def leaks(self) -> list[Leak]:
        """References that look forgotten, by owner, most bytes first."""
        return self._lifetimes.leaks()

    def flush(self) -> None:
        """Makes a disk copy of every value."""
        self._store.flush()

    def reconcile(self) -> Reconciliation:
        """The ledger beside what the process really holds, and the unexplained rest."""
        return reconcile(self.ledger, baseline=self._baseline, device=self.device)

    def stats(self) -> ManagerStats:
        """What every part did and holds, now."""
        return ManagerStats(
            level=self.level.name,
            device=str(self.device),
            places={place: self.ledger.state(place) for place in PLACES},
            holdings=self.ledger.holdings(),
            store=self._store.stats(),
            disk=self._disk.stats() if self._disk is not None else None,
            pools=self._pools.stats(),
            pressure=self._monitor.pressure if self._monitor is not None else None,
            leaks=self.leaks(),
        )

    def explain(self) -> str:
        """The same in words, line by line."""
        return explained(self.stats())

    def close(self) -> None:
        """Ends threads and frees every tier. Harmless when repeated."""
        with ExitStack() as ends:  # the last first, and all of them whatever fails
            if self._trace is not None:
                ends.callback(self._trace.close)
            ends.callback(self._store.close)
            ends.callback(self._pools.close)
            if self._monitor is not None:
                ends.callback(self._monitor.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # What the parts call.

    def _watch(self) -> None:
        """Has lifetimes and the trace hear of uses: each costs a hit a little."""
        if not self._watching:
            self._watching = True
            self._store.observe(self._heard)

    def _heard(self, event: Op, entry: Entry) -> None:
        """A use, a new value or a deletion. Under the store's lock."""
        if event == "put":
            self._lifetimes.born(entry.key, entry.nbytes)
        elif event == "get":
            self._lifetimes.used(entry.key)
        else:
            self._lifetimes.died(entry.key)
        if self._trace is not None:
            phase = self._lifetimes.current
            text = _text(entry.key)
            self._trace.record(Access(event, text, entry.nbytes, entry.cost, phase))

    def _free(self, key: Key) -> None:
        self._values.discard(key)

    def _advice(self, key: Key) -> int:
        return _RANK[self._lifetimes.advice(key)]

    def _relieve(self, pressure: Pressure) -> None:
        """Gives main memory up, and takes no more until the pressure is over."""
        shared: tuple[Place, ...] = ("host", "device") if self.device.type == "cpu" else ("host",)
        wanted = pressure.wanted_bytes
        for place in shared:
            if pressure.level == "none":
                self.ledger.set_budget(place, self._full_budgets[place])
                continue
            if wanted > 0:
                wanted -= self._store.relieve(place, wanted)
            # A little more than what is left, so that values can still pass through.
            full = self._full_budgets[place]
            left = self.ledger.used(place) + full // _PASSAGE
            self.ledger.set_budget(place, min(left, full))


def _level(name: str) -> Level:
    if name not in LEVELS:
        raise ConfigError(f"there is no level {name!r}", next_step=f"use {', '.join(LEVELS)}")
    return LEVELS[name]


def _profile(name: str | None) -> Profile | None:
    if name is not None and name not in PROFILES:
        raise ConfigError(f"there is no profile {name!r}", next_step=f"use {', '.join(PROFILES)}")
    return PROFILES[name] if name is not None else None


def _size(given: int | str | None, name: str, default: int) -> int:
    return default if given is None else parse_bytes(given, name=name)


def _settings(level: Level, device: torch.device) -> StoreSettings:
    policy = ONLINE[level.policy]
    return StoreSettings(
        device_policy=policy,
        host_policy=policy,
        encoding=Encoding(
            enabled=level.compress, min_ratio=level.min_ratio, pinned=device.type == "cuda"
        ),
        movers=level.movers,
        lookahead=level.lookahead,
    )


def _accelerator() -> torch.device:
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")


def _kind(group: str) -> Kind:
    for kind in KINDS:
        if kind == group:
            return kind
    return "features"


def _text(key: Key) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
