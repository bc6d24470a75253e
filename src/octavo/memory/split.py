"""Tensors over a size limit, kept in parts: some devices refuse single large allocations.

A value over the limit is cut along its first dimension (or flat, when a single row is over the
limit). Its parts are values of the store like any others; a manifest, itself a value, says how
they belong together. It is written last and deleted first, so a value is whole or not there.
When the store drops or loses a part, the whole value goes with the first read that misses it.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from octavo.memory.entry import Terms
from octavo.memory.policies.base import Key
from octavo.memory.store import TieredStore

_MANIFEST, _PART = "octavo:manifest", "octavo:part"
_MISSING: Any = object()

#: Writers of one key wait for each other, and for few others.
_LOCKS = 64


@dataclass(frozen=True, slots=True)
class Manifest:
    """How the parts of one value belong together.

    Attributes:
        shape, dtype: of the whole.
        rows: of the first dimension, or elements where ``flat``, in each part but the last.
        count: of parts.
        mark: tells this value's parts from those of an earlier one under the same key.
    """

    shape: tuple[int, ...]
    dtype: str
    rows: int
    count: int
    flat: bool
    mark: str

    def part(self, key: Key, index: int) -> Key:
        return (_PART, key, self.mark, index)


class SplitStore(MutableMapping[Key, torch.Tensor]):
    """A store for tensors of any size over one for tensors up to ``limit`` bytes.

    Safe to use from many threads. Readers lock nothing: one that finds a part gone looks whether
    the value was replaced meanwhile, and reads that.

    Args:
        store: keeps the parts; not closed by this one.
        limit: bytes; at least 4096.
    """

    def __init__(self, store: TieredStore, limit: int) -> None:
        self.store = store
        self.limit = max(limit, 4096)
        self._manifests: dict[Key, Manifest] = {}
        self._locks = [threading.RLock() for _ in range(_LOCKS)]
        self._recover()

    def put(self, key: Key, tensor: torch.Tensor, terms: Terms) -> None:
        """Stores a value, in parts where it is over the limit.

        Raises:
            BudgetExceeded, TierFull: no tier has room; the value before is still there.
        """
        with self._lock(key):
            before = self._manifests.get(key)
            if tensor.nbytes <= self.limit:
                self.store.put(key, tensor, terms)
                self._manifests.pop(key, None)
            else:
                self._put_parts(key, tensor, terms)
                self.store.discard(key)
            if before is not None:
                self._delete_parts(key, before, last=key not in self._manifests)

    def parts(self, key: Key) -> Iterator[torch.Tensor]:
        """The value in parts of at most ``limit`` bytes, in order; one where it is whole.

        Parts are blocks of the first dimension; flat pieces where a single row is over the limit.

        Raises:
            KeyError: no such key, or another value took its place meanwhile.
        """
        manifest = self._manifests.get(key)
        if manifest is None:
            yield self.store[key]
            return
        for index in range(manifest.count):
            yield self._part(key, manifest, index)

    def __getitem__(self, key: Key) -> torch.Tensor:
        while True:
            manifest = self._manifests.get(key)
            try:
                return self.store[key] if manifest is None else self._joined(key, manifest)
            except KeyError:
                if self._manifests.get(key) is manifest:
                    raise

    @contextmanager
    def pinned(self, key: Key) -> Iterator[torch.Tensor]:
        """The value, which stays in the device tier meanwhile; a joined one stays while held."""
        if key in self._manifests:
            yield self[key]
        else:
            with self.store.pinned(key) as tensor:
                yield tensor

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Starts bringing values, or their parts, to the device and returns at once."""
        for key in keys:
            manifest = self._manifests.get(key)
            count = manifest.count if manifest is not None else 0
            self.store.prefetch(
                [manifest.part(key, index) for index in range(count)] if manifest else [key]
            )

    def _joined(self, key: Key, manifest: Manifest) -> torch.Tensor:
        whole = self.store.borrow(manifest.shape, getattr(torch, manifest.dtype), owner=_PART)
        rows = whole.reshape(-1) if manifest.flat else whole
        for index in range(manifest.count):
            part = self._part(key, manifest, index)
            start = index * manifest.rows
            rows[start : start + part.shape[0]].copy_(part)
        return whole

    def __setitem__(self, key: Key, tensor: torch.Tensor) -> None:
        self.put(key, tensor, Terms())

    def __delitem__(self, key: Key) -> None:
        if not self.discard(key):
            raise KeyError(key)

    def discard(self, key: Key) -> bool:
        """Deletes a value without reading it; whether it was there."""
        with self._lock(key):
            manifest = self._manifests.pop(key, None)
            if manifest is None:
                return self.store.discard(key)
            self._delete_parts(key, manifest, last=True)
            return True

    def pop(self, key: Key, /, default: Any = _MISSING) -> Any:
        """Reads and deletes a value; nobody else can write that key in between."""
        with self._lock(key):
            try:
                value = self[key]
            except KeyError:
                if default is _MISSING:
                    raise
                return default
            self.discard(key)
            return value

    def clear(self) -> None:
        """Deletes all values without reading them."""
        for key in list(self):
            self.discard(key)

    def __contains__(self, key: object) -> bool:
        return key in self._manifests or key in self.store

    def __iter__(self) -> Iterator[Key]:
        yield from list(self._manifests)
        yield from (key for key in self.store if not (_is(key, _MANIFEST) or _is(key, _PART)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _lock(self, key: Key) -> threading.RLock:
        return self._locks[hash(key) % _LOCKS]

    def _recover(self) -> None:
        """Finds the values of a kept disk, and deletes parts of any that were not finished."""
        keys = list(self.store)
        for key in keys:
            if _is(key, _MANIFEST):
                self._manifests[key[1]] = _read(self.store[key])  # type: ignore[index]
        whole = {
            manifest.part(key, index)
            for key, manifest in self._manifests.items()
            for index in range(manifest.count)
        }
        for key in keys:
            if _is(key, _PART) and key not in whole:
                self.store.discard(key)

    def _part(self, key: Key, manifest: Manifest, index: int) -> torch.Tensor:
        try:
            return self.store[manifest.part(key, index)]
        except KeyError:
            with self._lock(key):
                if self._manifests.get(key) is manifest:  # dropped or lost, not replaced
                    self.discard(key)
            raise KeyError(key) from None

    def _put_parts(self, key: Key, tensor: torch.Tensor, terms: Terms) -> None:
        manifest, pieces = _cut(tensor, self.limit)
        done: list[Key] = []
        try:
            for index, piece in enumerate(pieces):
                self.store.put(manifest.part(key, index), piece, terms)
                done.append(manifest.part(key, index))
            words = json.dumps(asdict(manifest)).encode()
            note = torch.frombuffer(bytearray(words), dtype=torch.uint8)
            self.store.put((_MANIFEST, key), note, Terms(kind="other", owner=terms.owner))
        except BaseException:
            for part in done:
                self.store.discard(part)
            raise
        self._manifests[key] = manifest

    def _delete_parts(self, key: Key, manifest: Manifest, *, last: bool) -> None:
        if last:
            self.store.discard((_MANIFEST, key))
        for index in range(manifest.count):
            self.store.discard(manifest.part(key, index))


def _cut(tensor: torch.Tensor, limit: int) -> tuple[Manifest, Iterator[torch.Tensor]]:
    row = tensor.nbytes // tensor.shape[0] if tensor.dim() else 0
    flat = row == 0 or row > limit
    whole = tensor.reshape(-1) if flat else tensor
    rows = limit // (tensor.dtype.itemsize if flat else row)
    count = -(-whole.shape[0] // rows)
    dtype = str(tensor.dtype).removeprefix("torch.")
    manifest = Manifest(tuple(tensor.shape), dtype, rows, count, flat, secrets.token_hex(8))
    return manifest, (whole[start : start + rows] for start in range(0, whole.shape[0], rows))


def _read(note: torch.Tensor) -> Manifest:
    given: dict[str, Any] = json.loads(bytes(note.cpu().numpy()))
    return Manifest(**{**given, "shape": tuple(given["shape"])})


def _is(key: Key, mark: str) -> bool:
    return isinstance(key, tuple) and len(key) > 1 and key[0] == mark
