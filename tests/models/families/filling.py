"""Weights into a family's module, by the plain way: safetensors' own reader, one by one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from octavo.models.checkpoint import Checkpoint
from octavo.models.family import Family


def filled(
    family: Family,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    only: Iterable[str] | None = None,
    **others: torch.dtype,
) -> Any:
    """The module with the weights of ``folder``; with ``only``, of these components; ``others``
    are types of components that are not of ``dtype``."""
    checkpoint = Checkpoint.at(folder)
    module = family.build(checkpoint)
    assert not module.training
    assert all(parameter.is_meta for parameter in module.parameters())
    shared: dict[int, torch.Tensor] = {}
    for name, source in family.sources(checkpoint, module).items():
        if only is not None and family.component_of(name) not in only:
            continue
        spec = checkpoint.tensors[source]
        with safe_open(folder / spec.file, framework="pt") as file:
            stored = family.convert(name, file.get_tensor(source))
        kind = others.get(family.component_of(name), dtype)
        wanted = stored.to(kind) if stored.is_floating_point() else stored
        _place(module, name, wanted, shared)
    return module


def _place(module: nn.Module, name: str, value: torch.Tensor, shared: dict[int, Any]) -> None:
    """Puts ``value`` where the parameter is, in all places that share it."""
    old = dict(module.state_dict(keep_vars=True))[name]
    for path, tensor in module.state_dict(keep_vars=True).items():
        if tensor is old:
            parent, _, key = path.rpartition(".")
            home = module.get_submodule(parent)
            if isinstance(old, nn.Parameter):
                new = shared.setdefault(id(old), nn.Parameter(value, requires_grad=False))
                home._parameters[key] = new
            else:
                home._buffers[key] = value


def renamed(folder: Path, into: Path, rename: Callable[[str], str]) -> Path:
    """A copy of a checkpoint whose tensors have other names."""
    shutil.copytree(folder, into)
    tensors = load_file(folder / "model.safetensors")
    changed = {rename(name): tensor.clone() for name, tensor in tensors.items()}
    assert set(changed) != set(tensors)
    save_file(changed, into / "model.safetensors", metadata={"format": "pt"})
    return into


def configured(folder: Path, into: Path, file: str = "config.json", **changes: Any) -> Path:
    """A copy of a checkpoint with other settings; None takes a key out."""
    shutil.copytree(folder, into)
    settings = json.loads((into / file).read_text()) | changes
    settings = {key: value for key, value in settings.items() if value is not None}
    (into / file).write_text(json.dumps(settings))
    return into


def check_description(family: Family, folder: Path, floats: str = " ") -> None:
    """What ``describe`` says of tensors, against the module that transformers builds; weights
    whose names end with ``floats`` are never quantized."""
    checkpoint = Checkpoint.at(folder)
    spec = family.describe(checkpoint)
    module = family.build(checkpoint)
    sources = family.sources(checkpoint, module)
    described = [tensor for part in spec.components for tensor in part.tensors]
    assert sorted(tensor.name for tensor in described) == sorted(set(sources.values()))
    linear = {name for name in _linear(module, sources) if not name.endswith(floats)}
    assert {tensor.name for tensor in described if tensor.matrix} == linear
    for part in spec.components:
        for name, source in sources.items():
            assert family.component_of(name) == family.component_of(source), name
        layers = family.layers(module, part.name)
        inside = [{name for name, _ in layer.named_parameters()} for layer in layers]
        assert [len(names) for names in inside] == [len(layer) for layer in part.layers]
        for layer, names in zip(layers, part.layers, strict=True):
            assert {sources[name] for name in _named(module, layer)} == set(names)


def _linear(module: nn.Module, sources: Any) -> set[str]:
    """Sources of weights that only linear layers use."""
    embedded = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return {
        sources[f"{path}.weight"]
        for path, inner in module.named_modules()
        if isinstance(inner, nn.Linear) and id(inner.weight) not in embedded
    }


def _named(module: nn.Module, layer: nn.Module) -> list[str]:
    mine = {id(parameter) for parameter in layer.parameters()}
    return [name for name, parameter in module.named_parameters() if id(parameter) in mine]
