"""What changes the scores of a request's next token: transformers' processors for one row.

Shape letters: t tokens, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from octavo.models.constraints import hold

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from octavo.models.constraints import Matcher
    from octavo.models.generation import Chance

#: Ids (1, t) of prompt and answer and scores (1, v) to scores (1, v), perhaps the same ones.
Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def rules_of(
    settings: GenerationConfig,
    prompt_1t: torch.Tensor,
    matcher: Matcher | None,
    chance: Chance | None,
) -> list[Rule]:
    """As ``generate`` has them, in its order: the model's, the form, chance; none for an answer
    that may say anything and takes the likeliest.

    Args:
        settings: what :func:`octavo.models.generation.settings_for` made; they are changed.
        prompt_1t: where the scores will be.

    Raises:
        ValueError: transformers refuses the settings.
    """
    last: list[Rule] = []
    if matcher is not None:
        last.append(_Form(matcher))
    if chance is not None:
        last.append(chance)
    _complete(settings, prompt_1t)
    made: list[Rule] = list(
        _decoder()._get_logits_processor(
            settings,
            input_ids_seq_length=prompt_1t.shape[1],
            encoder_input_ids=prompt_1t,
            logits_processor=last,
            device=prompt_1t.device,
        )
    )
    return made


class _Form:
    """Makes what would leave the form impossible."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher

    def __call__(self, ids_1t: torch.Tensor, scores_1v: torch.Tensor) -> torch.Tensor:
        del ids_1t  # the matcher was told of each
        hold(scores_1v, [self._matcher])
        return scores_1v


def _complete(settings: Any, prompt_1t: torch.Tensor) -> None:
    """What ``generate`` works out from the prompt before it asks for processors."""
    ends = settings.eos_token_id
    ends_e = None if ends is None else torch.tensor(ends, device=prompt_1t.device)
    settings._eos_token_tensor = ends_e
    settings.max_length = settings.max_new_tokens + prompt_1t.shape[1]


@cache
def _decoder() -> Any:
    """Stands for a decoder: what transformers asks of a model when it makes processors."""
    from transformers import GenerationMixin, PretrainedConfig

    class Decoder(GenerationMixin):
        config = PretrainedConfig()

    return Decoder()
