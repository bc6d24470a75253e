"""timm for tests, where torchvision is not installed: timm imports a few of its names for data
sets and frozen norms, which no model here uses."""

from __future__ import annotations

import enum
import importlib
import importlib.util
import sys
import types
from typing import Any

import pytest

_NAMES = {
    "torchvision": (),
    "torchvision.ops": (),
    "torchvision.ops.misc": ("FrozenBatchNorm2d",),
    "torchvision.transforms": ("ToTensor",),
    "torchvision.transforms.functional": ("InterpolationMode",),
    "torchvision.datasets": (
        *("CIFAR100", "CIFAR10", "MNIST", "KMNIST", "FashionMNIST", "ImageFolder"),
    ),
}
_MODES = "NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS"


def import_timm() -> Any:
    """timm; skips the test where it is not installed."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    if "timm" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return importlib.import_module("timm")
    for path, names in _NAMES.items():
        module = types.ModuleType(path)
        module.__path__ = []
        for name in names:
            value: Any = type(name, (), {})
            if name == "InterpolationMode":
                value = enum.Enum(name, _MODES)
            setattr(module, name, value)
        sys.modules[path] = module
        parent, _, key = path.rpartition(".")
        if parent:
            setattr(sys.modules[parent], key, module)
    try:
        return importlib.import_module("timm")
    finally:
        for path in _NAMES:
            del sys.modules[path]


def transformers_with_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets transformers build timm's towers though torchvision is not there."""
    from transformers.models.timm_wrapper import modeling_timm_wrapper as wrapper

    monkeypatch.setattr(wrapper, "timm", import_timm(), raising=False)
    monkeypatch.setattr(wrapper, "requires_backends", lambda *_names: None)
