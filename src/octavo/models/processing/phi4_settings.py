"""What a Phi-4-multimodal checkpoint says of its pictures and sounds; needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from octavo.errors import InputError
from octavo.hardware.pictures_phi4 import HighDefinition
from octavo.models.checkpoint import Checkpoint
from octavo.models.processing.clip_files import picture_settings, processor_settings

_SIDES: Final = ("height", "width")


def high_definition(checkpoint: Checkpoint) -> HighDefinition:
    """How pictures are cut.

    Raises:
        InputError: there are no settings, or they do not fit the tower.
    """
    settings = picture_settings(checkpoint)
    size = settings.get("size", {"height": 448, "width": 448})
    height, width = (size.get(key) if isinstance(size, dict) else size for key in _SIDES)
    vision = checkpoint.config.get("vision_config") or {}
    wanted = (int(vision.get("crop_size", 448)), int(vision.get("patch_size", 14)))
    found = (height, settings.get("patch_size", 14))
    if height != width or found != wanted:
        raise InputError(
            f"the processor cuts crops of {found[0]} pixels in patches of {found[1]}; the tower "
            f"wants {wanted[0]} and {wanted[1]}",
            where=checkpoint.name,
            next_step="config.json and preprocessor_config.json are of different models",
        )
    return HighDefinition(*wanted, crops=int(settings.get("dynamic_hd", 36)))


def ear_settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """How sound is turned into features: newer checkpoints have it in a file for all media."""
    files = processor_settings(checkpoint)
    nested = files.get("audio_processor") or files.get("feature_extractor")
    return nested if isinstance(nested, dict) else picture_settings(checkpoint)
