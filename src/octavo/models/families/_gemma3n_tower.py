"""Gemma 3n's vision tower for transformers, without timm and torchvision.

``Gemma3nModel`` asks ``AutoModel`` for the tower of its ``vision_config``. A configuration of a
type of our own, registered with ``AutoModel``, brings :class:`MobileNetV5` there; names of
parameters stay those of checkpoints (``vision_tower.timm_model...``).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import AutoModel, Gemma3nVisionConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.import_utils import is_timm_available

from octavo.errors import MissingDependency, UnsupportedFormat
from octavo.models.families._mobilenet_v5 import FUSED, MobileNetV5

ARCHITECTURE: Final = "mobilenetv5_300m_enc"
#: timm's arguments of the tower → ours.
_ARGUMENTS: Final = {"channel_multiplier": "width", "msfa_output_resolution": "resolution"}


class MobileNetV5Config(Gemma3nVisionConfig):
    """A vision configuration whose tower is ours."""

    model_type = "gemma3n_vision_torch"


class MobileNetV5Tower(PreTrainedModel):
    """What ``Gemma3nModel`` calls its vision tower."""

    config_class = MobileNetV5Config
    base_model_prefix = "timm_model"
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: MobileNetV5Config) -> None:
        super().__init__(config)
        given = config.model_args or {}
        self.timm_model = MobileNetV5(**{_ARGUMENTS[key]: given[key] for key in given})
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(self, pixel_values: torch.Tensor, **_other: Any) -> BaseModelOutputWithPooling:
        """Pictures (b, 3, h, w) to ``last_hidden_state`` (b, c, h, w)."""
        features = self.timm_model(pixel_values.to(self.dtype))
        return BaseModelOutputWithPooling(last_hidden_state=features)


AutoModel.register(MobileNetV5Config, MobileNetV5Tower, exist_ok=True)


def own_tower(vision: Any) -> Any:
    """``vision`` as a configuration that needs no timm, where the tower is MobileNet-V5.

    Raises:
        UnsupportedFormat: MobileNet-V5 with settings that are not known here.
        MissingDependency: another tower, and timm or torchvision is not installed.
    """
    if vision.architecture != ARCHITECTURE:
        if not is_timm_available():
            raise MissingDependency(
                f"the vision tower {vision.architecture} needs timm and torchvision",
                next_step="pip install timm",
            )
        return vision
    unknown = set(vision.model_args or {}) - set(_ARGUMENTS)
    if unknown or vision.hidden_size != FUSED:
        raise UnsupportedFormat(
            f"a {ARCHITECTURE} with {', '.join(sorted(unknown)) or vision.hidden_size}"
        )
    return MobileNetV5Config(
        architecture=vision.architecture,
        model_args=vision.model_args,
        do_pooling=False,
        hidden_size=vision.hidden_size,
        vocab_size=vision.vocab_size,
        vocab_offset=vision.vocab_offset,
        rms_norm_eps=vision.rms_norm_eps,
        initializer_range=vision.initializer_range,
    )
