"""How much one step may do."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a step.

    Attributes:
        max_tokens_per_step: tokens that go through the model at once, of all sequences.
        max_running: sequences that run at the same time.
        prefill_chunk: tokens of one sequence in one step.
        aging: steps of waiting that weigh as much as one level of priority. A sequence is
            overtaken only by those that come less than ``aging`` steps times the difference in
            priority after it, so none waits for ever.
    """

    max_tokens_per_step: int
    max_running: int
    prefill_chunk: int
    aging: int = 200

    def __post_init__(self) -> None:
        if min(self.max_running, self.prefill_chunk, self.aging) < 1:
            raise ConfigError("max_running, prefill_chunk and aging must be at least 1")
        if self.max_running > self.max_tokens_per_step:
            raise ConfigError(
                "every running sequence needs a token in each step",
                where=f"max_running {self.max_running}, "
                f"max_tokens_per_step {self.max_tokens_per_step}",
                next_step="lower max_running or raise max_tokens_per_step",
            )
