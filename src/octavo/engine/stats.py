"""What an engine did so far."""

from __future__ import annotations

from dataclasses import dataclass

from octavo.engine.watch import PhaseUse


@dataclass(frozen=True, slots=True)
class EngineStats:
    """
    Attributes:
        requests, steps: completions that were told; passes over the weights.
        prompt_tokens: that were computed; ``prefix_tokens``: that were shared instead.
        answer_tokens: that were chosen.
        feature_hits, feature_misses: media whose features were there, and that were computed.
        preemptions: how often a request gave way to others.
        relieved: how often memory ran out and something was given up.
        failed_steps: that broke off for another reason.
        kv_bytes, kv_blocks, kv_block_tokens: what keys and values have.
        busy_seconds: in steps.
        phases: what each took at most beside what was planned for it.
        shed: how often memory came close to its limit and what lay idle was dropped.
    """

    requests: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    prefix_tokens: int = 0
    answer_tokens: int = 0
    feature_hits: int = 0
    feature_misses: int = 0
    preemptions: int = 0
    relieved: int = 0
    failed_steps: int = 0
    kv_bytes: int = 0
    kv_blocks: int = 0
    kv_block_tokens: int = 0
    busy_seconds: float = 0.0
    phases: tuple[PhaseUse, ...] = ()
    shed: int = 0
