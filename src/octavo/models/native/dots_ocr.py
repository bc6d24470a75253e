"""dots.ocr: a vision tower of its own before a Qwen2 decoder.

The tower (42 layers of width 1536 in the published checkpoint) takes rows of 14 x 14 pixels in
the order in which 2 x 2 of them merge to one token, attends over one picture at a time with 2-D
rotary positions, and its merger turns four rows into one token of the decoder.

Shape letters: p patches of all pictures, t tokens, d width, a heads, k width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen2ForCausalLM

from octavo.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Base of the rotary frequencies of the tower.
THETA = 10_000.0
#: Patches of one step where rows do not depend on each other.
ROWS = 2048
#: Arguments of ``forward`` that go in with the prompt alone.
_OF_PICTURES = ("pixel_values", "image_grid_thw", "image_features")


@dataclass(frozen=True, slots=True)
class VisionSettings:
    """``vision_config`` of ``config.json``, with the published checkpoint's values by default."""

    embed_dim: int = 1536
    intermediate_size: int = 4224
    num_hidden_layers: int = 42
    num_attention_heads: int = 12
    num_channels: int = 3
    patch_size: int = 14
    spatial_merge_size: int = 2
    temporal_patch_size: int = 1
    rms_norm_eps: float = 1e-5
    use_bias: bool = False
    post_norm: bool = True

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str) -> VisionSettings:
        """Unknown keys are the remote code's own and are left out.

        Raises:
            InputError: a value that this tower cannot have.
        """
        known = {entry.name for entry in fields(cls)}
        found = cls(**{key: value for key, value in values.items() if key in known})
        if found.embed_dim % (4 * found.num_attention_heads) or found.temporal_patch_size != 1:
            raise InputError(
                f"a vision tower of width {found.embed_dim} with {found.num_attention_heads} heads "
                f"and {found.temporal_patch_size} frames a patch is no dots.ocr",
                where=where,
            )
        return found


class DotsOCRModel(Qwen2ForCausalLM):
    """The whole model; ``config.vision_config`` is a dict for :class:`VisionSettings`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        settings = VisionSettings.of(config.vision_config, "vision_config")
        self.vision_tower = VisionTower(settings, config.hidden_size)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Any = None,
        logits_to_keep: int | torch.Tensor = 0,
        image_features: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the decoder's, with pictures.

        Args:
            input_ids: (1, t); every ``config.image_token_id`` stands for one merged patch.
            pixel_values: (p, channels * 14 * 14).
            image_grid_thw: (pictures, 3): 1, patches high, patches wide.
            logits_to_keep: of the last tokens; ``generate`` looks for this name before it asks for
                those of one token instead of all.
            image_features: (merged patches, d): what the tower made of all pictures, in place of
                ``pixel_values``.
        """
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
            if image_features is None and pixel_values is not None:
                assert image_grid_thw is not None
                image_features = self.vision_tower(pixel_values, image_grid_thw)
            if image_features is not None:
                assert input_ids is not None
                inputs_embeds = self._with_pictures(input_ids, inputs_embeds, image_features)
        return super().forward(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        """transformers looks for this in a class's own file; the layers are those of Qwen2."""
        return True

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: torch.Tensor, *, is_first_iteration: bool = False, **kwargs: Any
    ) -> Any:
        """Pictures go in with the prompt; their tokens are in the cache from then on."""
        pictures = {name: kwargs.pop(name, None) for name in _OF_PICTURES}
        decoder: Any = super()
        inputs = decoder.prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs |= pictures
        return inputs

    def _with_pictures(
        self, ids_bt: torch.Tensor, embeds_btd: torch.Tensor, features_td: torch.Tensor
    ) -> torch.Tensor:
        places_bt = ids_bt == self.config.image_token_id
        if int(places_bt.sum()) != len(features_td):
            raise InputError(
                f"{int(places_bt.sum())} places for {len(features_td)} picture tokens in the prompt"
            )
        places_btd = places_bt[..., None].expand_as(embeds_btd)
        return embeds_btd.masked_scatter(places_btd, features_td.to(embeds_btd.dtype))


class VisionTower(nn.Module):
    """Patches to tokens of the decoder."""

    def __init__(self, settings: VisionSettings, out_features: int) -> None:
        super().__init__()
        self.settings = settings
        self.patch_embed = PatchEmbed(settings)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.num_hidden_layers))
        self.post_trunk_norm = (
            RMSNorm(settings.embed_dim, settings.rms_norm_eps)
            if settings.post_norm
            else nn.Identity()
        )
        self.merger = Merger(settings, out_features)

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embed.patchifier.proj.weight.dtype

    def forward(self, pixels_px: torch.Tensor, grid_n3: torch.Tensor) -> torch.Tensor:
        """Shape (p / 4, width of the decoder); pictures one after another.

        Args:
            pixels_px: rows of all pictures, (p, channels * patch * patch).
            grid_n3: 1, patches high and wide of each.
        """
        hidden_pd = self.patch_embed(pixels_px.to(self.dtype))
        turns = self.rotary(grid_n3, hidden_pd.device)
        lengths = grid_n3.prod(1).tolist()
        for block in self.blocks:
            hidden_pd = block(hidden_pd, turns, lengths)
        merged: torch.Tensor = self.merger(self.post_trunk_norm(hidden_pd))
        return merged

    def rotary(
        self, grid_n3: torch.Tensor, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of each patch's place, (p, 1, k) in float32.

        Half of the frequencies turn with the row, half with the column, and both halves of a head
        turn alike.
        """
        width = self.settings.embed_dim // self.settings.num_attention_heads // 2
        steps = torch.arange(0, width, 2, dtype=torch.float32, device=device)
        frequencies_f = 1.0 / THETA ** (steps / width)
        places_p2 = torch.cat([self._places(grid, device) for grid in grid_n3.tolist()])
        angles_pf = (places_p2[..., None] * frequencies_f).flatten(1)
        angles_pk = torch.cat((angles_pf, angles_pf), dim=-1)[:, None]
        return angles_pk.cos(), angles_pk.sin()

    def _places(self, grid: list[int], device: torch.device) -> torch.Tensor:
        """Row and column of each patch of a picture, in the order of merging: (p, 2)."""
        _, high, wide = grid
        merge = self.settings.spatial_merge_size
        rows, columns = torch.meshgrid(
            torch.arange(high, device=device), torch.arange(wide, device=device), indexing="ij"
        )
        both = torch.stack((rows, columns), dim=-1)
        cells = both.view(high // merge, merge, wide // merge, merge, 2)
        return cells.transpose(1, 2).reshape(-1, 2).float()


class PatchEmbed(nn.Module):
    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.patchifier = Patchifier(settings)

    def forward(self, pixels_px: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.patchifier(pixels_px)
        return embedded


class Patchifier(nn.Module):
    """A convolution whose kernel is one patch: a linear layer over its pixels."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.settings = settings
        self.proj = nn.Conv2d(
            settings.num_channels, settings.embed_dim, settings.patch_size, settings.patch_size
        )
        self.norm = RMSNorm(settings.embed_dim, settings.rms_norm_eps)

    def forward(self, pixels_px: torch.Tensor) -> torch.Tensor:
        weight_dx = self.proj.weight.flatten(1)
        embedded: torch.Tensor = self.norm(functional.linear(pixels_px, weight_dx, self.proj.bias))
        return embedded


class RMSNorm(nn.Module):
    """Root mean square norm (Zhang and Sennrich 2019), summed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x_pd: torch.Tensor) -> torch.Tensor:
        wide = x_pd.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return scaled.to(x_pd.dtype) * self.weight


class Block(nn.Module):
    """A pre-norm layer."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.norm1 = RMSNorm(settings.embed_dim, settings.rms_norm_eps)
        self.attn = Attention(settings)
        self.norm2 = RMSNorm(settings.embed_dim, settings.rms_norm_eps)
        self.mlp = Mlp(settings)

    def forward(
        self,
        x_pd: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        lengths: list[int],
    ) -> torch.Tensor:
        x_pd = x_pd + self.attn(self.norm1(x_pd), turns, lengths)
        out: torch.Tensor = x_pd + self.mlp(self.norm2(x_pd))
        return out


class Attention(nn.Module):
    """All patches of a picture see each other; none sees another picture."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        self.heads = settings.num_attention_heads
        self.qkv = nn.Linear(settings.embed_dim, 3 * settings.embed_dim, settings.use_bias)
        self.proj = nn.Linear(settings.embed_dim, settings.embed_dim, settings.use_bias)

    def forward(
        self,
        x_pd: torch.Tensor,
        turns: tuple[torch.Tensor, torch.Tensor],
        lengths: list[int],
    ) -> torch.Tensor:
        q_pak, k_pak, v_pak = self.qkv(x_pd).view(len(x_pd), 3, self.heads, -1).unbind(1)
        _turn(q_pak, turns)
        _turn(k_pak, turns)
        seen = [
            functional.scaled_dot_product_attention(
                *(part.transpose(0, 1)[None] for part in picture)
            )[0].transpose(0, 1)
            for picture in zip(
                q_pak.split(lengths), k_pak.split(lengths), v_pak.split(lengths), strict=True
            )
        ]
        out: torch.Tensor = self.proj(torch.cat(seen).flatten(1))
        return out


def turned(x_pak: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """``x_pak`` rotated by its patches' angles, computed in float32 (Su et al. 2021)."""
    cos_p1k, sin_p1k = turns
    wide = x_pak.float()
    first, second = wide.chunk(2, dim=-1)
    rotated = wide * cos_p1k + torch.cat((-second, first), dim=-1) * sin_p1k
    return rotated.to(x_pak.dtype)


def _turn(x_pak: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Rotates in place, some patches at a time, so that no float32 copy of all stands beside."""
    for x_rak, cos_r1k, sin_r1k in zip(
        x_pak.split(ROWS), turns[0].split(ROWS), turns[1].split(ROWS), strict=True
    ):
        x_rak.copy_(turned(x_rak, (cos_r1k, sin_r1k)))


class Mlp(nn.Module):
    """Gated: ``fc2(silu(fc1(x)) * fc3(x))``, some patches at a time: the inner width is three
    times the outer one, and a page has thousands of patches."""

    def __init__(self, settings: VisionSettings) -> None:
        super().__init__()
        width, inner = settings.embed_dim, settings.intermediate_size
        self.fc1 = nn.Linear(width, inner, settings.use_bias)
        self.fc2 = nn.Linear(inner, width, settings.use_bias)
        self.fc3 = nn.Linear(width, inner, settings.use_bias)

    def forward(self, x_pd: torch.Tensor) -> torch.Tensor:
        made = [
            self.fc2(functional.silu(self.fc1(x_rd)) * self.fc3(x_rd)) for x_rd in x_pd.split(ROWS)
        ]
        return made[0] if len(made) == 1 else torch.cat(made)


class Merger(nn.Module):
    """Four neighbouring patches become one token."""

    def __init__(self, settings: VisionSettings, out_features: int) -> None:
        super().__init__()
        self.wide = settings.embed_dim * settings.spatial_merge_size**2
        self.ln_q = nn.LayerNorm(settings.embed_dim, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(self.wide, self.wide), nn.GELU(), nn.Linear(self.wide, out_features)
        )

    def forward(self, x_pd: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.mlp(self.ln_q(x_pd).view(-1, self.wide))
        return out
