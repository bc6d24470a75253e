"""dots.ocr: pages to layout and text, without code from the checkpoint's folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import InputError
from octavo.hardware.pictures import GridPicture
from octavo.hardware.spec import ModelSpec, Precision, TensorSpec, TextShape, VisionShape
from octavo.models.checkpoint import Checkpoint, require
from octavo.models.family import Family, Prepared, Processor, Task, components
from octavo.models.processing.qwen_pictures import Patching, picture_patching, picture_rows
from octavo.requests import InputMode, MediaReader, Message, Modality, Request

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn

#: The published processor's bounds.
PICTURES: Final = Patching(patch=14, merge=2, frames=1, min_pixels=3136, max_pixels=11_289_600)
IMAGE_TOKEN: Final = 151_665
ENDS: Final = (151_643, 151_673)
_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|blocks)\.(\d+)\.")
_STORED: Final = {"F32": Precision.FP32, "BF16": Precision.BF16, "F16": Precision.FP16}
#: Words around what each side says.
_SIDES: Final = {
    "system": ("<|system|>", "<|endofsystem|>"),
    "user": ("<|user|>", "<|endofuser|>"),
    "assistant": ("<|assistant|>", "<|endofassistant|>"),
}


class DotsOCR(Family):
    """One decoder of Qwen2's kind behind a tower that sees a page in full."""

    name = "dots.ocr"
    paged = True
    model_types = frozenset({"dots_ocr"})
    tasks = frozenset({Task.CHAT, Task.ANSWER, Task.CAPTION})
    modes = frozenset({InputMode.LANGUAGE, InputMode.VISION})

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        config = self.config(checkpoint)
        vision = _vision(checkpoint)
        tensors = checkpoint.tensors
        most = max(
            _STORED, key=lambda dtype: sum(t.nbytes for t in tensors.values() if t.dtype == dtype)
        )
        width = int(vision.get("embed_dim", 1536))
        bounds = picture_patching(checkpoint, PICTURES)
        _check_patches(checkpoint, vision, bounds)
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=_STORED[most],
            components=components(
                self, tensors, ("vision", "projector", "language"), _layer, _is_matrix
            ),
            text=TextShape(
                layers=config.num_hidden_layers,
                hidden=config.hidden_size,
                heads=config.num_attention_heads,
                kv_heads=config.num_key_value_heads,
                head_dim=config.hidden_size // config.num_attention_heads,
                ffn=config.intermediate_size,
                vocabulary=config.vocab_size,
                positions=config.max_position_embeddings,
                tied=bool(config.tie_word_embeddings),
            ),
            vision=VisionShape(
                layers=int(vision.get("num_hidden_layers", 42)),
                hidden=width,
                heads=int(vision.get("num_attention_heads", 12)),
                ffn=int(vision.get("intermediate_size", 4224)),
                patch=bounds.patch,
                picture=GridPicture(
                    bounds.patch, bounds.merge, bounds.min_pixels, bounds.max_pixels
                ),
                out_hidden=config.hidden_size,
                gated=True,
            ),
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        from octavo.models.native.dots_ocr import DotsOCRModel
        from octavo.models.skeleton import skeleton

        return skeleton(self.config(checkpoint), DotsOCRModel, checkpoint.folder)

    def processor(self, checkpoint: Checkpoint) -> Processor:
        config = checkpoint.config
        ends = config.get("eos_token_id")
        if checkpoint.has("generation_config.json"):
            ends = checkpoint.json("generation_config.json").get("eos_token_id", ends)
        return DotsProcessor(
            _tokenizer(checkpoint),
            int(config.get("image_token_id", IMAGE_TOKEN)),
            frozenset(ENDS if ends is None else ends if isinstance(ends, list) else [ends]),
            picture_patching(checkpoint, PICTURES),
        )

    def component_of(self, name: str) -> str:
        if name.startswith("vision_tower.merger."):
            return "projector"
        return "vision" if name.startswith("vision_tower.") else "language"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        model: Any = module
        if component == "language":
            return list(model.model.layers)
        return list(model.vision_tower.blocks) if component == "vision" else ()

    def config(self, checkpoint: Checkpoint) -> Any:
        """The decoder's configuration, with ``vision_config`` and the token of pictures.

        Raises:
            InputError: it is not one of dots.ocr.
        """
        from transformers import Qwen2Config

        vision = dict(_vision(checkpoint))
        values = {
            key: value
            for key, value in checkpoint.config.items()
            if key not in ("vision_config", "model_type", "auto_map", "architectures")
        }
        require(values, "hidden_size", checkpoint.name)
        try:
            config = Qwen2Config.from_dict(values)
        except (TypeError, ValueError) as error:
            raise InputError(f"config.json: {error}", where=checkpoint.name) from error
        config.vision_config = vision
        config.image_token_id = int(values.get("image_token_id", IMAGE_TOKEN))
        return config


class DotsProcessor(Processor):
    """``<|user|><|img|><|imgpad|>...<|endofimg|>WORDS<|endofuser|><|assistant|>``."""

    def __init__(
        self, tokenizer: Any, image_token: int, ends: frozenset[int], pictures: Patching
    ) -> None:
        self.tokenizer = tokenizer
        self._image_token = image_token
        self._pad = str(tokenizer.convert_ids_to_tokens(image_token))
        self._ends = ends
        self.pictures = pictures

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._ends

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        import numpy as np
        import torch

        rows: list[NDArray[np.float32]] = []
        grids: list[tuple[int, int, int]] = []
        notes: list[str] = []
        text = "".join(
            self._said(message, media, rows, grids, notes) for message in request.messages
        )
        ids_t = torch.tensor(
            self.tokenizer(text + _SIDES["assistant"][0], add_special_tokens=False)["input_ids"]
        )
        inputs: dict[str, torch.Tensor] = {
            "input_ids": ids_t[None],
            "attention_mask": torch.ones_like(ids_t)[None],
        }
        if rows:
            inputs["pixel_values"] = torch.from_numpy(np.concatenate(rows))
            inputs["image_grid_thw"] = torch.tensor(grids)
        places = int((ids_t == self._image_token).sum())
        merged = self.pictures.merge**2
        if places != sum(high * wide // merged for _, high, wide in grids):
            raise InputError(
                f"the words hold {self._pad}, which stands for a picture",
                where=request.id,
                next_step="take it out; pictures are given as parts",
            )
        return Prepared(inputs, len(ids_t), places, tuple(notes))

    def _said(
        self,
        message: Message,
        media: MediaReader,
        rows: list[NDArray[Any]],
        grids: list[tuple[int, int, int]],
        notes: list[str],
    ) -> str:
        """One message as text; its pictures go to ``rows``, ``grids`` and ``notes``."""
        pieces: list[str] = []
        for part in message.parts:
            if part.kind is Modality.TEXT:
                pieces.append(str(part.value))
            elif part.kind is Modality.IMAGE:
                cut, grid = picture_rows(media.picture(part), self.pictures, part.where)
                rows.append(cut)
                grids.append(grid)
                _, high, wide = grid
                patch = self.pictures.patch
                notes.append(f"{part.where}: picture of {wide * patch} x {high * patch}")
                count = high * wide // self.pictures.merge**2
                pieces.append(f"<|img|>{self._pad * count}<|endofimg|>")
            else:
                raise InputError(
                    f"dots.ocr takes words and pictures, no {part.kind}",
                    where=part.where,
                    next_step="give pages as pictures",
                )
        before, after = _SIDES[message.role]
        return before + "".join(pieces) + after


def _tokenizer(checkpoint: Checkpoint) -> Any:
    """Straight from ``tokenizer.json``: transformers would look for a model type it has not.

    Raises:
        InputError: the file is missing or damaged.
    """
    from transformers import PreTrainedTokenizerFast

    folder = checkpoint.folder
    if folder is None or not checkpoint.has("tokenizer.json"):
        raise InputError(
            "no tokenizer.json beside the weights",
            where=checkpoint.name,
            next_step="download the model again",
        )
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    # The tokenizers library raises the bare class for a file that it cannot read.
    except Exception as error:
        raise InputError(
            f"tokenizer.json cannot be read: {error}",
            where=checkpoint.name,
            next_step="download the model again",
        ) from error


def _vision(checkpoint: Checkpoint) -> Mapping[str, Any]:
    found = require(checkpoint.config, "vision_config", checkpoint.name)
    if not isinstance(found, Mapping):
        raise InputError("vision_config is not an object", where=checkpoint.name)
    return found


def _check_patches(checkpoint: Checkpoint, vision: Mapping[str, Any], bounds: Patching) -> None:
    """Raises InputError where pictures would be cut otherwise than the tower takes them."""
    cut = (bounds.patch, bounds.merge, bounds.frames)
    taken = (
        vision.get("patch_size", PICTURES.patch),
        vision.get("spatial_merge_size", PICTURES.merge),
        vision.get("temporal_patch_size", PICTURES.frames),
    )
    if cut != taken:
        raise InputError(
            f"pictures are cut into patches of {cut} (side, merged, frames), the tower takes "
            f"{taken}",
            where=checkpoint.name,
            next_step="the configurations are of different models; download the model again",
        )


def _layer(name: str) -> int | None:
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def _is_matrix(tensor: TensorSpec) -> bool:
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and not tensor.name.endswith("embed_tokens.weight")
    )
