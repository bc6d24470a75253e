"""Fills a module's components from a folder of safetensors files, several at a time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final, Self

import torch
from torch import nn

from octavo.errors import BrokenFile
from octavo.hardware.spec import ComponentSpec, Precision
from octavo.memory.ledger import Ledger
from octavo.models.loading.checksum import Sums
from octavo.models.loading.fill import Convert
from octavo.models.loading.layout import Wanted, lay_out
from octavo.models.loading.memory import Memory
from octavo.models.loading.opened import DOWNLOAD_AGAIN, unreadable
from octavo.models.loading.places import Places
from octavo.models.loading.progress import LoadProgress
from octavo.models.loading.readers import ReaderPool
from octavo.models.loading.running import Loading
from octavo.models.loading.serial import workers
from octavo.models.loading.wanted import wanted_of

#: Of one of the two chunks that a component's bytes go through when they are not read in place.
STAGING_BYTES: Final = 32 << 20


class Loader:
    """Loads components of the models in one folder; all share threads and disk.

    A component that was started earlier is read earlier. Parameters are put into the module only
    when all of the component is there, so that a load that fails or is cancelled never touches
    the module.

    Args:
        folder: holds the files that components name.
        ledger: asked before memory is taken; weights are held there until ``Loading.unload``.
        readers: shared with others; made and closed by the loader when not given.
        checksums: file → SHA-256 in hexadecimal digits. A component is there only when the files
            that it reads from are found right.
        on_progress: told from the component's own thread after every few megabytes.
        staging_bytes: of one of two chunks a component.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ledger: Ledger | None = None,
        readers: ReaderPool | None = None,
        checksums: Mapping[str, str] | None = None,
        on_progress: Callable[[LoadProgress], None] | None = None,
        staging_bytes: int = STAGING_BYTES,
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._own_readers = readers is None
        self._readers = readers or ReaderPool()
        self._workers = workers("octavo-cast")
        self._sums = Sums(folder, checksums or {})
        self._on_progress = on_progress
        self._staging_bytes = staging_bytes
        self._orders = itertools.count()
        self._loadings: list[Loading] = []

    def start(
        self,
        module: nn.Module,
        component: ComponentSpec,
        sources: Mapping[str, str],
        *,
        precision: Precision | None,
        compute: Precision = Precision.BF16,
        device: torch.device | str = "cpu",
        skip: Collection[str] = (),
        convert: Convert | None = None,
    ) -> Loading:
        """Begins to load a component; returns at once.

        Args:
            module: its parameters are on the meta device.
            sources: parameter or buffer of ``module`` → the tensor that fills it. Tied ones are
                named once. Those of other components are passed over.
            precision: of the weights; None keeps the stored types. Integers are never cast.
            compute: of what is not quantized, when ``precision`` is.
            skip: names of tensors that are not loaded: their parameters stay as they are.
            convert: (name, stored tensor) → the tensor in the module's layout. It is asked first
                with tensors on the meta device; what it returns as the same object is left as it
                is stored.

        Raises:
            InputError: a parameter that the module lacks, or a tensor of another shape.
            BrokenFile, SourceNotFound: a file is too short or not there.
            BudgetExceeded: the ledger has no room, or the system. Nothing is held.
        """
        place = torch.device(device)
        places = Places(module)
        wanted = wanted_of(
            places,
            component,
            sources,
            folder=self._folder,
            precision=precision,
            compute=compute,
            on_cpu=place.type == "cpu",
            skip=skip,
            convert=convert,
        )
        sizes = {file: self._size(file) for file in {one.source.file for one in wanted}}
        _check_ends(self._folder, wanted, sizes)
        hashed = [file for file in sizes if self._sums.covers(file) and self._sums.claim(file)]
        try:
            layout = lay_out(wanted, sizes, chunk_bytes=self._staging_bytes, whole=hashed)
            memory = Memory(
                layout,
                wanted,
                places,
                precision=precision,
                compute=compute,
                device=place,
                ledger=self._ledger,
                owner=component.name,
            )
        except BaseException:
            for file in hashed:
                self._sums.give_up(file)
            raise
        loading = Loading(
            component.name,
            self._folder,
            layout,
            memory,
            convert=convert,
            readers=self._readers,
            workers=self._workers,
            sums=self._sums,
            hashed=hashed,
            order=next(self._orders),
            on_progress=self._on_progress,
        )
        self._loadings.append(loading)
        return loading

    def close(self) -> None:
        """Cancels what is under way, waits for it and ends the threads. What is loaded stays."""
        for loading in self._loadings:
            loading.cancel()
        self._loadings.clear()
        self._workers.shutdown()
        if self._own_readers:
            self._readers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _size(self, file: str) -> int:
        try:
            return (self._folder / file).stat().st_size
        except OSError as error:
            raise unreadable(self._folder / file, error) from error


def _check_ends(folder: Path, wanted: list[Wanted], sizes: Mapping[str, int]) -> None:
    """The header may have been read before the file was cut."""
    for one in wanted:
        size = sizes[one.source.file]
        if one.end > size:
            raise BrokenFile(
                f"cut short: {size} bytes, {one.source.name} ends at {one.end}",
                where=str(folder / one.source.file),
                next_step=DOWNLOAD_AGAIN,
            )
