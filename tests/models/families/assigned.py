"""Weights into a family's module in one go; for modules with many small tensors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from octavo.models.checkpoint import Checkpoint
from octavo.models.family import Family
from tests.models.families import filling


def assigned(
    family: Family,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    only: Iterable[str] | None = None,
) -> Any:
    """The module with the weights of ``folder``; with ``only``, of these components."""
    checkpoint = Checkpoint.at(folder)
    module: Any = family.build(checkpoint)
    assert all(parameter.is_meta for parameter in module.parameters())
    stored = load_file(folder / "model.safetensors")
    wanted = {
        name: family.convert(name, stored[source]).to(dtype)
        for name, source in family.sources(checkpoint, module).items()
        if only is None or family.component_of(name) in only
    }
    missing, unexpected = module.load_state_dict(wanted, strict=False, assign=True)
    assert not unexpected
    assert only is not None or set(missing) <= set(module.all_tied_weights_keys)
    module.tie_weights()
    return module


def check_description_but(
    monkeypatch: pytest.MonkeyPatch, family: Family, folder: Path, never: str
) -> None:
    """``check_description`` where linear layers with ``never`` in their names stay in float."""
    linear = filling._linear

    def without(module: Any, sources: Any) -> set[str]:
        found = linear(module, sources)
        assert any(never in name for name in found)
        return {name for name in found if never not in name}

    monkeypatch.setattr(filling, "_linear", without)
    filling.check_description(family, folder)
