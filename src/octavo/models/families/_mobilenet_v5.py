"""MobileNet-V5 encoder (300 M parameters), the vision tower of Gemma 3n, in plain torch.

transformers takes this tower from timm, and timm cannot be imported without torchvision. The
blocks are those of MobileNet-V4 (Qin et al. 2024, https://arxiv.org/abs/2404.10518, sections 3
and 4); stages, fusion and names of parameters are those of timm's ``mobilenetv5_300m_enc``, so
that checkpoints fit without renaming. Convolutions pad as TensorFlow's "SAME" does.

Shape letters: b pictures, c channels, h height, w width, n heads, q queries, k keys, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

EPSILON: Final = 1e-6
STEM: Final = 64
FUSED: Final = 2048


@dataclass(frozen=True, slots=True)
class _Edge:
    """A fused inverted bottleneck: a full convolution that widens, then a pointwise one."""

    out: int
    stride: int = 1


@dataclass(frozen=True, slots=True)
class _Inverted:
    """A universal inverted bottleneck: kernels of its depthwise convolutions, 0 for none."""

    out: int
    expand: float
    start: int = 0
    middle: int = 0
    stride: int = 1


@dataclass(frozen=True, slots=True)
class _Attention:
    """Multi-query attention; keys and values are taken every ``kv_stride`` cells."""

    out: int
    heads: int
    head_dim: int
    kv_stride: int = 1


_Block = _Edge | _Inverted | _Attention

STAGES: Final[tuple[tuple[_Block, ...], ...]] = (
    (_Edge(128, stride=2), _Edge(128), _Edge(128)),
    (
        _Inverted(256, 6, start=3, middle=5, stride=2),
        *(_Inverted(256, 4, start=kernel) for kernel in (5, 3, 5, 3)),
    ),
    (
        _Inverted(640, 6, start=5, middle=5, stride=2),
        *(_Inverted(640, 4, start=5),) * 7,
        _Inverted(640, 1),
        *(_Attention(640, 12, 64, kv_stride=2), _Inverted(640, 2)) * 14,
    ),
    (
        _Inverted(1280, 6, start=5, middle=5, stride=2),
        *(_Attention(1280, 16, 96), _Inverted(1280, 2)) * 19,
    ),
)


class MobileNetV5(nn.Module):
    """Pictures (b, 3, h, w) to features (b, 2048, ``resolution``, ``resolution``).

    Args:
        width: multiplies the channels of the stages; 1 is the published size.
        resolution: cells a side of what comes out.
    """

    def __init__(self, width: float = 1.0, resolution: int = 16) -> None:
        super().__init__()
        channels = STEM if width < 1 else _whole(STEM * width)
        self.conv_stem = _ConvNorm(3, channels, 3, stride=2, bias=True, active=True)
        stages, ends = [], []
        for stage in STAGES:
            blocks: list[nn.Module] = []
            for block in stage:
                out = _whole(block.out * width)
                blocks.append(_built(block, channels, out))
                channels = out
            stages.append(nn.Sequential(*blocks))
            ends.append(channels)
        self.blocks = nn.Sequential(*stages)
        self.msfa = _Fusion(sum(ends[-2:]), FUSED, resolution)

    def forward(self, pixels_bchw: torch.Tensor) -> torch.Tensor:
        x_bchw = self.conv_stem(pixels_bchw)
        seen = []
        for stage in self.blocks:
            x_bchw = stage(x_bchw)
            seen.append(x_bchw)
        fused_bchw: torch.Tensor = self.msfa(seen[-2:])
        return fused_bchw


def _whole(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of 8, at least 8, and no more than a tenth below."""
    nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * channels else nearest


def _built(block: _Block, channels: int, out: int) -> nn.Module:
    if isinstance(block, _Edge):
        return _EdgeResidual(channels, out, block.stride)
    if isinstance(block, _Inverted):
        return _InvertedResidual(channels, out, block)
    return _MobileAttention(channels, block)


class _Conv(nn.Conv2d):
    """A convolution whose output has ceil(size / stride) cells, the odd zero last."""

    def __init__(
        self, channels: int, out: int, kernel: int, stride: int = 1, *, deep: bool = False
    ) -> None:
        groups = channels if deep else 1
        super().__init__(channels, out, kernel, stride, groups=groups, bias=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        missing = [self._missing(size) for size in input.shape[-2:]]
        if any(missing):
            high, wide = missing
            input = F.pad(input, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return F.conv2d(input, self.weight, self.bias, self.stride, groups=self.groups)

    def _missing(self, size: int) -> int:
        stride, kernel = self.stride[0], self.kernel_size[0]
        return max((-(-size // stride) - 1) * stride + kernel - size, 0)


class _Norm(nn.Module):
    """Root-mean-square norm over channels; ``active``: with GELU (tanh) after it."""

    def __init__(self, channels: int, *, active: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.active = active

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        size_b1hw = x_bchw.pow(2).mean(dim=1, keepdim=True)
        x_bchw = x_bchw * torch.rsqrt(size_b1hw + EPSILON) * self.weight.view(1, -1, 1, 1)
        return F.gelu(x_bchw, approximate="tanh") if self.active else x_bchw


class _ConvNorm(nn.Module):
    def __init__(
        self,
        channels: int,
        out: int,
        kernel: int,
        stride: int = 1,
        *,
        deep: bool = False,
        bias: bool = False,
        active: bool = False,
    ) -> None:
        super().__init__()
        self.conv = _Conv(channels, out, kernel, stride, deep=deep)
        if bias:
            self.conv.bias = nn.Parameter(torch.zeros(out))
        self.bn = _Norm(out, active=active)

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        normed_bchw: torch.Tensor = self.bn(self.conv(x_bchw))
        return normed_bchw


class _Scale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), 1e-5))

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        return x_bchw * self.gamma.view(1, -1, 1, 1)


class _EdgeResidual(nn.Module):
    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        wide = _whole(channels * 4)
        self.conv_exp = _Conv(channels, wide, 3, stride)
        self.bn1 = _Norm(wide, active=True)
        self.conv_pwl = _Conv(wide, out, 1)
        self.bn2 = _Norm(out)
        self._skips = channels == out and stride == 1

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        y_bchw: torch.Tensor = self.bn2(self.conv_pwl(self.bn1(self.conv_exp(x_bchw))))
        return y_bchw + x_bchw if self._skips else y_bchw


class _InvertedResidual(nn.Module):
    """``scaled``: with a learned scale of each channel; ``skips`` adds the input where it fits."""

    def __init__(
        self, channels: int, out: int, block: _Inverted, *, scaled: bool = True, skips: bool = True
    ) -> None:
        super().__init__()
        wide = _whole(channels * block.expand)
        if block.start:
            self.dw_start = _ConvNorm(channels, channels, block.start, deep=True)
        self.pw_exp = _ConvNorm(channels, wide, 1, active=True)
        if block.middle:
            self.dw_mid = _ConvNorm(wide, wide, block.middle, block.stride, deep=True, active=True)
        self.pw_proj = _ConvNorm(wide, out, 1)
        if scaled:
            self.layer_scale = _Scale(out)
        self._skips = skips and channels == out and block.stride == 1

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        y_bchw = x_bchw
        for name in ("dw_start", "pw_exp", "dw_mid", "pw_proj", "layer_scale"):
            if name in self._modules:
                y_bchw = self._modules[name](y_bchw)  # type: ignore[misc]
        return y_bchw + x_bchw if self._skips else y_bchw


class _MobileAttention(nn.Module):
    def __init__(self, channels: int, block: _Attention) -> None:
        super().__init__()
        self.norm = _Norm(channels)
        self.attn = _MultiQueryAttention(channels, block)
        self.layer_scale = _Scale(channels)

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        y_bchw: torch.Tensor = self.layer_scale(self.attn(self.norm(x_bchw)))
        return y_bchw + x_bchw


class _MultiQueryAttention(nn.Module):
    """All heads share one key and one value (Shazeer 2019)."""

    def __init__(self, channels: int, block: _Attention) -> None:
        super().__init__()
        self.heads, self.head_dim = block.heads, block.head_dim
        inner = block.heads * block.head_dim
        self.query = _named(proj=_Conv(channels, inner, 1))
        self.key = _shared(channels, block)
        self.value = _shared(channels, block)
        self.output = _named(proj=_Conv(inner, channels, 1))

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        batch, _, high, wide = x_bchw.shape
        q_bnqd = self.query(x_bchw).view(batch, self.heads, self.head_dim, -1).transpose(2, 3)
        k_b1kd, v_b1kd = (
            side(x_bchw).flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
            for side in (self.key, self.value)
        )
        o_bnqd = F.scaled_dot_product_attention(q_bnqd.contiguous(), k_b1kd, v_b1kd)
        o_bchw = o_bnqd.transpose(2, 3).reshape(batch, -1, high, wide)
        projected_bchw: torch.Tensor = self.output(o_bchw)
        return projected_bchw


def _shared(channels: int, block: _Attention) -> nn.Sequential:
    """Makes the one key (or value) of all heads, on a coarser grid with a stride."""
    if block.kv_stride == 1:
        return _named(proj=_Conv(channels, block.head_dim, 1))
    return _named(
        down_conv=_Conv(channels, channels, 3, block.kv_stride, deep=True),
        norm=_Norm(channels),
        proj=_Conv(channels, block.head_dim, 1),
    )


def _named(**modules: nn.Module) -> nn.Sequential:
    made = nn.Sequential()
    for name, module in modules.items():
        made.add_module(name, module)
    return made


class _Fusion(nn.Module):
    """Joins the maps of the last stages at the first one's size, then brings them to the
    output's: by means of whole cells where they divide, else bilinearly."""

    def __init__(self, channels: int, out: int, resolution: int) -> None:
        super().__init__()
        self.ffn = _InvertedResidual(channels, out, _Inverted(out, 2), scaled=False, skips=False)
        self.norm = _Norm(out)
        self._resolution = resolution

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        size = maps[0].shape[-2:]
        same = [
            x_bchw if x_bchw.shape[-2:] == size else F.interpolate(x_bchw, size=size)
            for x_bchw in maps
        ]
        x_bchw = self.ffn(torch.cat(same, dim=1))
        high, wide = (side // self._resolution for side in size)
        if (high * self._resolution, wide * self._resolution) != tuple(size):
            wanted = (self._resolution, self._resolution)
            x_bchw = F.interpolate(x_bchw, size=wanted, mode="bilinear")
        elif (high, wide) != (1, 1):
            x_bchw = F.avg_pool2d(x_bchw, (high, wide))
        normed_bchw: torch.Tensor = self.norm(x_bchw)
        return normed_bchw
