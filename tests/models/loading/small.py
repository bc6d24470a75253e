"""A small checkpoint with every kind of tensor, modules for it, and disks that fail."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import threading
import time
import weakref
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from octavo.hardware.spec import ComponentSpec
from octavo.memory.ledger import Ledger
from octavo.models.checkpoint import Checkpoint
from octavo.models.loading import Loader, Loading, opened

ROWS, COLUMNS = 700, 256


class Tower(nn.Module):
    """Linear layers with and without bias, a norm, a counter, and a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(COLUMNS, ROWS)
        self.norm = nn.BatchNorm1d(ROWS)  # float and integer buffers
        self.down = nn.Linear(ROWS, COLUMNS, bias=False)
        self.register_buffer("own", torch.arange(3.0), persistent=False)


class Model(nn.Module):
    """Two towers, and embeddings tied to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(900, COLUMNS)
        self.text = Tower()
        self.vision = Tower()
        self.head = nn.Linear(COLUMNS, 900, bias=False)
        self.head.weight = self.embed.weight


def on_meta() -> Model:
    with torch.device("meta"):
        module = Model()
    for tower in (module.text, module.vision):
        tower.own = torch.arange(3.0)
    return module


@dataclass
class Saved:
    """A checkpoint on disk and what is in it."""

    folder: Path
    values: dict[str, torch.Tensor]
    parts: dict[str, ComponentSpec]
    sources: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.sources = {name: name for name in self.values}

    @property
    def shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    @property
    def sums(self) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.shards}

    def start(self, loader: Loader, module: nn.Module, part: str, **how: Any) -> Loading:
        how.setdefault("precision", None)
        return loader.start(module, self.parts[part], self.sources, **how)


def save(folder: Path, dtype: torch.dtype = torch.bfloat16, *, shards: int = 2) -> Saved:
    """Tensors alternate between the shards, so that components share them."""
    torch.manual_seed(0)
    module = Model()
    values = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).clone()
        for name, tensor in module.state_dict().items()
        if name != "head.weight"
    }
    values["text.norm.running_var"] = torch.rand(ROWS)  # another type than the rest
    names = sorted(values)
    files = [f"model-{number}.safetensors" for number in range(shards)]
    placed = {name: files[number % shards] for number, name in enumerate(names)}
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        save_file({name: values[name] for name in names if placed[name] == file}, folder / file)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    return Saved(folder, _read_back(folder), _parts(Checkpoint.at(folder)))


def _read_back(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {name: value.clone() for name, value in load_file(path).items()}
    return found


def _parts(checkpoint: Checkpoint) -> dict[str, ComponentSpec]:
    found: dict[str, list[Any]] = {"text": [], "vision": []}
    for tensor in checkpoint.tensors.values():
        part = "vision" if tensor.name.startswith("vision") else "text"
        matrix = tensor.name.endswith(("up.weight", "down.weight"))
        found[part].append(replace(tensor, matrix=matrix))
    return {name: ComponentSpec(name, tuple(tensors)) for name, tensors in found.items()}


@dataclass
class Traces:
    """What a load could leave behind."""

    ledger: Ledger
    areas: list[weakref.ref[mmap.mmap]]

    def live_memory(self) -> int:
        """Buffers that are still there; threads may need a moment to let go of them."""
        end = time.monotonic() + 2
        while (left := sum(ref() is not None for ref in self.areas)) and time.monotonic() < end:
            time.sleep(0.005)
        return left

    def check_nothing_left_but_pools(self, module: nn.Module) -> None:
        assert self.ledger.used("host") == 0
        assert self.live_memory() == 0, "buffers outlive the load"
        assert all(parameter.is_meta for parameter in module.parameters())
        assert type(module.get_submodule("text.up")) is nn.Linear

    def check_nothing_left(self, module: nn.Module, saved: Saved) -> None:
        self.check_nothing_left_but_pools(module)
        assert not open_shards(saved.folder)
        assert not threads_left()


def open_shards(folder: Path) -> list[str]:
    """Files of ``folder`` that this process has open."""
    found = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)
        except FileNotFoundError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


def threads_left() -> list[str]:
    left = [
        thread
        for thread in threading.enumerate()
        if thread.name.startswith(("octavo-read", "octavo-load", "octavo-cast"))
    ]
    for thread in left:
        thread.join(10)
    return [thread.name for thread in left if thread.is_alive()]


class Disk:
    """Stands before ``read_at``: counts reads and does to the n-th what a bad disk does.

    Args:
        at: number of the read, from 0.
        kind: ``eio``, ``short`` (half of what was asked) or ``end`` (nothing).
    """

    def __init__(self, patch: pytest.MonkeyPatch, at: int, kind: str) -> None:
        self._real = opened.read_at
        self._at, self._kind = at, kind
        self._lock = threading.Lock()
        self.reads = 0
        patch.setattr(opened, "read_at", self)

    def __call__(self, fd: int, view: memoryview, offset: int) -> int:
        with self._lock:
            number, self.reads = self.reads, self.reads + 1
        if number != self._at:
            return self._real(fd, view, offset)
        if self._kind == "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self._kind == "short" and len(view) > 1:
            return self._real(fd, view[: max(len(view) // 2, 1)], offset)
        return 0
