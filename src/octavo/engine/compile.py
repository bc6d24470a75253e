"""``torch.compile`` for a decoder's layers, in place and undone at will.

Off by default: measured on a CPU it does not pay (``benchmarks/compile.py``), because nearly all
time goes to products of matrices, which compiling leaves as they are.

Only the feed-forward part of each layer is compiled, once for all layers and any number of tokens.
The rest of a layer hands its keys and values to the engine's cache, where tracing ends; compiled
whole it is traced anew for each number of sequences, until torch gives up after eight.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from octavo.errors import ConfigError, MissingDependency

if TYPE_CHECKING:
    from torch import nn


def compile_layers(layers: Iterable[nn.Module], *, backend: str = "inductor") -> int:
    """Has layers run compiled from their next call on; that call takes a minute or so.

    Args:
        layers: of a decoder. Those whose weights are streamed are left alone: hooks change them
            on every pass.
        backend: of ``torch.compile``.

    Returns:
        How many are compiled now.

    Raises:
        ConfigError: none of them can be.
        MissingDependency: there is no C++ compiler, which inductor needs for a CPU.
    """
    parts = [part for layer in layers if not _hooked(layer) for part in _parts(layer)]
    if not parts:
        raise ConfigError(
            "no layer of this model can be compiled",
            next_step="leave compile out, or give it memory for all weights",
        )
    if backend == "inductor" and _on_cpu(parts[0]) and not _compiler():
        raise MissingDependency(
            "no C++ compiler, which compiling for a CPU needs",
            next_step="apt install g++, or leave compile out",
        )
    for part in parts:
        if part._compiled_call_impl is None:
            part.compile(backend=backend, dynamic=True)
    return len(parts)


def undo(layers: Iterable[nn.Module]) -> None:
    """Has layers run as they were written. Harmless where they do."""
    for layer in layers:
        for part in _parts(layer):
            part._compiled_call_impl = None


def _parts(layer: nn.Module) -> Iterator[Any]:
    """What looks at single tokens, by the name that transformers gives it in every decoder."""
    return (child for name, child in layer.named_children() if name == "mlp")


def _hooked(layer: nn.Module) -> bool:
    return any(child._forward_pre_hooks or child._forward_hooks for child in layer.modules())


def _on_cpu(part: nn.Module) -> bool:
    return any(weight.device.type == "cpu" for weight in part.parameters())


def _compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
