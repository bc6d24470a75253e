"""Tokenizers and picture processors from a checkpoint's own files, without torchvision.

transformers' ``AutoProcessor`` builds the torchvision classes first and complains where there is
no torchvision; here its Pillow classes are made from the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import BrokenFile, ConfigError, InputError
from octavo.models.checkpoint import Checkpoint
from octavo.requests import Modality, Part

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

PICTURES: Final = "preprocessor_config.json"
PROCESSOR: Final = "processor_config.json"
_TOKENIZERS: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def local(checkpoint: Checkpoint) -> Path:
    """The checkpoint's folder.

    Raises:
        ConfigError: its files are not on this machine.
    """
    if checkpoint.folder is None:
        raise ConfigError(
            "the tokenizer is read from local files only",
            where=checkpoint.name,
            next_step=f"octavo pull {checkpoint.name}",
        )
    return checkpoint.folder


def tokenizer_of(checkpoint: Checkpoint) -> Any:
    """The tokenizer.

    Raises:
        InputError: its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    folder = local(checkpoint)
    if not any(checkpoint.has(name) for name in _TOKENIZERS):
        raise InputError(
            "there is no tokenizer beside the weights",
            where=checkpoint.name,
            next_step="download the model again",
        )
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BrokenFile(
            f"its tokenizer cannot be read: {error}",
            where=checkpoint.name,
            next_step="download the model again",
        ) from error


def processor_settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """``processor_config.json``; empty where there is none, as in older checkpoints."""
    return checkpoint.json(PROCESSOR) if checkpoint.has(PROCESSOR) else {}


def picture_settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """How pictures are resized and scaled, from the file that has it.

    Raises:
        InputError: none has.
    """
    nested = processor_settings(checkpoint).get("image_processor")
    if isinstance(nested, dict):
        return nested
    if not checkpoint.has(PICTURES):
        raise InputError(
            f"no {PICTURES}, so it is not known how pictures are prepared",
            where=checkpoint.name,
            next_step="download the model again",
        )
    return checkpoint.json(PICTURES)


def picture_processor(checkpoint: Checkpoint, default: type[Any]) -> Any:
    """transformers' Pillow class that the settings name, else ``default``.

    Raises:
        InputError: there are no settings, or ones that the class refuses.
    """
    settings = dict(picture_settings(checkpoint))
    chosen = _class_named(settings) or default
    try:
        return chosen.from_dict(settings)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"the settings for pictures cannot be used: {error}", where=checkpoint.name
        ) from error


def _class_named(settings: Mapping[str, Any]) -> type[Any] | None:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.videomae.image_processing_pil_videomae import (
        VideoMAEImageProcessorPil,
    )

    known: tuple[type[Any], ...] = (
        BlipImageProcessorPil,
        CLIPImageProcessorPil,
        LlavaImageProcessorPil,
        LlavaNextImageProcessorPil,
        SiglipImageProcessorPil,
        VideoMAEImageProcessorPil,
    )
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    plain = str(name).removesuffix("Fast").removesuffix("Pil")
    plain = plain.replace("FeatureExtractor", "ImageProcessor")
    return {kind.__name__.removesuffix("Pil"): kind for kind in known}.get(plain)


def pixels_of(processor: Any, pictures: Sequence[NDArray[np.uint8]]) -> Mapping[str, torch.Tensor]:
    """Pictures of height × width × 3 through a Pillow class; ``pixel_values`` and what else it
    makes."""
    from PIL import Image

    # As Pillow images: of an array of 3 x 3 x 3 the class would have to guess the colours' axis.
    images = [Image.fromarray(picture) for picture in pictures]
    made: Mapping[str, torch.Tensor] = processor(images, return_tensors="pt")
    return made


def refuse(part: Part, family: str, takes: str) -> InputError:
    """The error for a part of a kind that a family does not take."""
    kind = {Modality.AUDIO: "sound", Modality.VIDEO: "films", Modality.IMAGE: "pictures"}
    return InputError(
        f"{family} models take no {kind.get(part.kind, part.kind)}",
        where=part.where,
        next_step=f"give it {takes}",
    )
