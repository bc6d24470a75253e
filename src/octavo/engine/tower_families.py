"""The towers of families that answer about pictures; see :mod:`octavo.engine.tower`.

Shape letters: p patches, n pictures, l taps, t tokens, d width of the decoder.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import torch
from torch import nn

from octavo.engine.tower import Medium, Tower
from octavo.hardware.pictures_tiled import TiledPicture

#: The argument of ``forward`` that takes features by kind of medium.
TAKEN_BY_KIND: Final = "mm_encoder_outputs"


def placed(pixels: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """Where the module's inputs live and in its type, as without a cache."""
    return pixels.to(_device(module), getattr(module, "dtype", torch.float32))


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters() if not p.is_meta), torch.device("cpu"))


def takes_features(module: nn.Module) -> bool:
    """Whether ``forward`` takes features in place of pixels; in transformers 5.17 it
    does not."""
    return TAKEN_BY_KIND in inspect.signature(module.forward).parameters


class _GridTower(Tower):
    """Rows of patches of all media of a kind in one tensor, and a grid for each."""

    grids: ClassVar[Mapping[str, str]] = {"image": "image_grid_thw"}

    @abstractmethod
    def merge(self, module: nn.Module) -> int:
        """Patches a side that make one token."""

    def media(self, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[Medium]:
        cell = self.merge(module) ** 2
        found: list[Medium] = []
        for kind, name in self.pixels.items():
            if name not in inputs:
                continue
            start = 0
            for grid in inputs[self.grids[kind]].tolist():
                rows = math.prod(grid)
                pixels_px = inputs[name][start : start + rows]
                found.append(Medium(kind, pixels_px, tuple(grid), rows, rows // cell))
                start += rows
        return found


class QwenTower(_GridTower):
    """Qwen2.5-VL and Qwen3-VL; the latter's tower feeds several layers of the decoder."""

    pixels: ClassVar[Mapping[str, str]] = {"image": "pixel_values", "video": "pixel_values_videos"}
    grids: ClassVar[Mapping[str, str]] = {"image": "image_grid_thw", "video": "video_grid_thw"}

    def merge(self, module: nn.Module) -> int:
        model: Any = module
        return int(model.model.visual.spatial_merge_size)

    def see(self, module: nn.Module, media: Sequence[Medium]) -> list[torch.Tensor]:
        model: Any = module
        pixels_px, grid_n3 = _rows(module, media)
        get = getattr(model.model, f"get_{media[0].kind}_features")
        found = get(pixels_px, grid_n3, return_dict=True)
        lengths = [medium.tokens for medium in media]
        taps = [
            # transformers 5.17 leaves deepstack features of all media in one tensor.
            tap.split(lengths) if isinstance(tap, torch.Tensor) else tap
            for tap in (found.pooler_output, *(getattr(found, "deepstack_features", None) or ()))
        ]
        return [torch.stack(each) for each in zip(*taps, strict=True)]

    def see_in_chunks(
        self, module: nn.Module, media: Sequence[Medium], chunk: int
    ) -> list[torch.Tensor]:
        from octavo.engine.tower_chunks_qwen import see_in_chunks

        model: Any = module
        rows = [medium.pixels for medium in media]
        made_ltd = see_in_chunks(
            model.model.visual,
            rows,
            _grids(module, media),
            chunk,
            lambda part: placed(part, module),
        )
        if len(media) == 1:
            return [made_ltd]
        each = made_ltd.split([medium.tokens for medium in media], dim=1)
        return [part.clone() for part in each]

    def outputs(self, module: nn.Module, features_ltd: Sequence[torch.Tensor]) -> Any:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import (
            BaseModelOutputWithDeepstackFeatures,
        )

        seen: Any = [one[0] for one in features_ltd]
        taps: Any = [[one[tap] for one in features_ltd] for tap in range(1, len(features_ltd[0]))]
        if not takes_features(module):
            taps = [torch.cat(tap) for tap in taps]
        return BaseModelOutputWithDeepstackFeatures(pooler_output=seen, deepstack_features=taps)

    def placeholders(self, module: nn.Module) -> Mapping[str, int]:
        config: Any = module.config
        return {"image": config.image_token_id, "video": config.video_token_id}


class DotsTower(_GridTower):
    """dots.ocr, whose own module is ours."""

    def merge(self, module: nn.Module) -> int:
        model: Any = module
        return int(model.vision_tower.settings.spatial_merge_size)

    def see(self, module: nn.Module, media: Sequence[Medium]) -> list[torch.Tensor]:
        tower: Any = module.get_submodule("vision_tower")
        return _apart(tower(*_rows(module, media)), media)

    def see_in_chunks(
        self, module: nn.Module, media: Sequence[Medium], chunk: int
    ) -> list[torch.Tensor]:
        from octavo.engine.tower_chunks import see_in_chunks

        tower: Any = module.get_submodule("vision_tower")
        rows = [medium.pixels for medium in media]
        made_td = see_in_chunks(
            tower, rows, _grids(module, media), chunk, lambda part: placed(part, module)
        )
        return _apart(made_td, media)

    def outputs(self, module: nn.Module, features_ltd: Sequence[torch.Tensor]) -> torch.Tensor:
        del module
        return torch.cat([one[0] for one in features_ltd])

    def placeholders(self, module: nn.Module) -> Mapping[str, int]:
        config: Any = module.config
        return {"image": config.image_token_id}


class LlavaTower(Tower):
    """LLaVA: pictures of one size."""

    def media(self, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[Medium]:
        if "pixel_values" not in inputs:
            return []
        pixels_nchw = inputs["pixel_values"]
        tokens = _share(module, self, inputs, len(pixels_nchw))
        return [
            Medium("image", one, (), _patches(module, one.shape), tokens)
            for one in pixels_nchw.split(1)
        ]

    def see(self, module: nn.Module, media: Sequence[Medium]) -> list[torch.Tensor]:
        model: Any = module
        pixels_nchw = placed(torch.cat([medium.pixels for medium in media]), module)
        found = model.model.get_image_features(pixels_nchw, return_dict=True).pooler_output
        return [torch.stack((one,)) for one in found]

    def outputs(self, module: nn.Module, features_ltd: Sequence[torch.Tensor]) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        del module
        seen: Any = [one[0] for one in features_ltd]
        return BaseModelOutputWithPooling(pooler_output=seen)

    def placeholders(self, module: nn.Module) -> Mapping[str, int]:
        config: Any = module.config
        return {"image": config.image_token_id}


class LlavaNextTower(LlavaTower):
    """LLaVA-NeXT: each picture in tiles. What pads fewer tiles to the request's most is cut off
    before anything follows from it."""

    def media(self, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[Medium]:
        if "pixel_values" not in inputs:
            return []
        rule = _rule(module)
        found = []
        sizes = inputs["image_sizes"].tolist()
        for pixels_kchw, (high, wide) in zip(inputs["pixel_values"], sizes, strict=True):
            cost = rule.cost(wide, high)
            tiles_kchw = pixels_kchw[: cost.sequences]
            found.append(Medium("image", tiles_kchw, (high, wide), cost.patches, cost.tokens))
        return found

    def see(self, module: nn.Module, media: Sequence[Medium]) -> list[torch.Tensor]:
        model: Any = module
        pixels_kchw = placed(torch.cat([medium.pixels for medium in media]), module)
        sizes_n2 = torch.tensor([medium.grid for medium in media])
        get = model.model.get_image_features
        found = get(pixels_kchw, sizes_n2, return_dict=True).pooler_output
        return [torch.stack((one,)) for one in found]


class Gemma3nTower(LlavaTower):
    """Gemma 3n: pictures of one size; frames of films are pictures; sound in clips."""

    pixels: ClassVar[Mapping[str, str]] = {"image": "pixel_values", "audio": "input_features"}
    handed: ClassVar[frozenset[str]] = frozenset({"audio"})

    def media(self, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[Medium]:
        return super().media(module, inputs) + self._clips(module, inputs)

    def _clips(self, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[Medium]:
        if "input_features" not in inputs:
            return []
        config: Any = module.config
        clips_1fm = inputs["input_features"].split(1)
        heard_n = inputs["input_features_mask"].sum(1).tolist()
        tokens = int(config.audio_soft_tokens_per_image)
        return [
            Medium("audio", clip_1fm, (heard,), clip_1fm.shape[1], tokens)
            for clip_1fm, heard in zip(clips_1fm, heard_n, strict=True)
        ]

    def see(self, module: nn.Module, media: Sequence[Medium]) -> list[torch.Tensor]:
        if media[0].kind == "audio":
            return [self._heard(module, medium) for medium in media]
        return super().see(module, media)

    def _heard(self, module: nn.Module, medium: Medium) -> torch.Tensor:
        """Features (1, t, d) of one clip, with what the model puts where nothing is heard."""
        model: Any = module.get_submodule("model")
        frames_1fm = placed(medium.pixels, module)
        silent_1f = torch.arange(frames_1fm.shape[1], device=frames_1fm.device)[None]
        silent_1f = silent_1f >= medium.grid[0]
        made = model.get_audio_features(frames_1fm, silent_1f, return_dict=True)
        last = torch.tensor([[model.vocab_size - 1]], device=frames_1fm.device)
        filler_11d = model.embed_audio(input_ids=last)
        features_1td: torch.Tensor = filler_11d.repeat(1, medium.tokens, 1)
        heard_1sd = torch.where(made.audio_mel_mask[..., None], filler_11d, made.pooler_output)
        features_1td[:, : heard_1sd.shape[1]] = heard_1sd
        return features_1td

    def outputs(self, module: nn.Module, features_ltd: Sequence[torch.Tensor]) -> Any:
        from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioEncoderModelOutput

        del module
        seen: Any = torch.cat(list(features_ltd))
        all_heard: Any = torch.zeros(seen.shape[:2], dtype=torch.bool, device=seen.device)
        return Gemma3nAudioEncoderModelOutput(pooler_output=seen, audio_mel_mask=all_heard)

    def placeholders(self, module: nn.Module) -> Mapping[str, int]:
        config: Any = module.config
        return {"image": config.image_token_id, "audio": config.audio_token_id}


def _rows(module: nn.Module, media: Sequence[Medium]) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of all media, and their grids (n, 3)."""
    pixels_px = placed(torch.cat([medium.pixels for medium in media]), module)
    return pixels_px, _grids(module, media)


def _grids(module: nn.Module, media: Sequence[Medium]) -> torch.Tensor:
    return torch.tensor([medium.grid for medium in media], device=_device(module))


def _apart(features_td: torch.Tensor, media: Sequence[Medium]) -> list[torch.Tensor]:
    """Each medium's share (1, t, d), which keeps no other's in memory."""
    each = features_td.split([medium.tokens for medium in media])
    return [torch.stack((one,)) for one in each]


def _share(
    module: nn.Module, tower: Tower, inputs: Mapping[str, torch.Tensor], pictures: int
) -> int:
    """Tokens of one of several pictures that take equally many."""
    token = tower.placeholders(module)["image"]
    return int((inputs["input_ids"] == token).sum()) // pictures


def _patches(module: nn.Module, shape: torch.Size) -> int:
    """Rows of a picture through the tower; a tower of convolutions has cells of 16 pixels."""
    vision: Any = module.config.vision_config  # type: ignore[union-attr]
    side = int(getattr(vision, "patch_size", 16))
    return (shape[-2] // side) * (shape[-1] // side)


def _rule(module: nn.Module) -> TiledPicture:
    config: Any = module.config
    vision = config.vision_config
    extra = 1 if vision.model_type == "clip_vision_model" else 0
    dropped = 1 if config.vision_feature_select_strategy == "default" else 0
    return TiledPicture(
        tile=int(vision.image_size),
        patch=int(vision.patch_size),
        grids=tuple((int(high), int(wide)) for high, wide in config.image_grid_pinpoints),
        extra=extra,
        kept=extra - dropped,
    )


#: By the family's name.
TOWERS: Final[Mapping[str, type[Tower]]] = {
    "qwen3-vl": QwenTower,
    "qwen2.5-vl": QwenTower,
    "dots.ocr": DotsTower,
    "llava": LlavaTower,
    "llava-next": LlavaNextTower,
    "gemma3n": Gemma3nTower,
}
