"""Which families there are, found by ``model_type``; a family's file is imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from octavo.errors import InputError, OctavoError, UnsupportedFormat
from octavo.models.checkpoint import Checkpoint
from octavo.models.family import Family

#: Module under ``octavo.models.families`` → classes in it.
_HOMES: Final = {
    "qwen3_vl": ("Qwen3VL",),
    "qwen2_5_vl": ("Qwen25VL",),
    "dots_ocr": ("DotsOCR",),
    "gemma3n": ("Gemma3n",),
    "phi4_multimodal": ("Phi4Multimodal",),
    "llava": ("Llava",),
    "llava_next": ("LlavaNext",),
    "blip": ("Blip",),
    "blip_2": ("Blip2",),
    "clip": ("Clip",),
    "x_clip": ("XClip",),
    "whisper": ("Whisper",),
    "text": ("Text",),
    "sentence": ("Sentence",),
}


def families() -> tuple[Family, ...]:
    """One of each, in a fixed order."""
    found: list[Family] = []
    for module, names in _HOMES.items():
        home = importlib.import_module(f"octavo.models.families.{module}")
        found.extend(getattr(home, name)() for name in names)
    return tuple(found)


def family_of(checkpoint: Checkpoint) -> Family:
    """The family that a checkpoint belongs to.

    Raises:
        UnsupportedFormat: none knows its ``model_type``.
    """
    known = families()
    for family in known:
        if family.recognizes(checkpoint):
            return family
    names = ", ".join(family.name for family in known)
    raise UnsupportedFormat(
        f"no family knows the model type {checkpoint.model_type!r}",
        where=checkpoint.name,
        next_step=f"families: {names}",
    )


@contextmanager
def saying_whose(checkpoint: Checkpoint, family: Family) -> Iterator[None]:
    """What libraries raise over a configuration, as InputError: its values are a stranger's."""
    from huggingface_hub.errors import StrictDataclassError

    try:
        yield
    except OctavoError:
        raise
    except (
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
        StrictDataclassError,
    ) as error:
        raise InputError(
            f"its configuration is not one of {family.name}: {type(error).__name__}: {error}",
            where=checkpoint.name,
            next_step="download the model again, or pip install --upgrade transformers",
        ) from error
