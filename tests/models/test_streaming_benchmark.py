"""The benchmark of streaming: its ways answer alike, and its caps hold."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from benchmarks.streaming_process import capped, in_a_process
from benchmarks.streaming_ways import WAYS, batch, describe, single

from benchmarks import streaming, streaming_batch


@pytest.fixture
def task(tiny: Callable[[str], Path]) -> dict[str, Any]:
    return {
        "folder": str(tiny("qwen3-vl")),
        "dtype": "float32",
        "prompt": 64,
        "new": 3,
        "batch": 2,
        "short_words": 4,
        "long_words": 8,
        "repeats": 1,
        "prompts": [4, 9],
    }


def test_all_ways_give_the_same_answers(task: dict[str, Any]) -> None:
    sizes = describe(task)
    assert sizes["weights"] > 2_000_000
    budget = int((sizes["weights"] + sizes["others"]) / 0.9)
    found = {}
    for name, way in WAYS.items():
        with way({**task, "budget": budget, "weights_budget": sizes["weights"] // 2}) as (ask, _):
            alone = single(ask, task)
            assert alone["prefill_s"] > 0
            assert alone["bytes_per_token"] >= 0
            together = batch(ask, task)
            one_by_one = batch(ask, {**task, "one_by_one": 1})
            assert (together["tokens"], one_by_one["tokens"]) == (6, 3)
            found[name] = [alone["answer"], *together["answers"], *one_by_one["answers"]]
    assert found["octavo"] == found["accelerate"] == found["transformers"]


def test_the_disk_is_read_in_a_process_of_its_own(task: dict[str, Any]) -> None:
    found = in_a_process(streaming.WAYS_MODULE, {**task, "way": "raw"}, cap=1 << 30)
    assert found["disk_bytes_per_s"] > 0
    assert found.get("cap_peak_bytes", 1) > 0


def test_what_a_cap_ends_is_told(task: dict[str, Any]) -> None:
    with capped(1 << 30) as group:
        if group is None:
            pytest.skip("no control group can be made here")
    assert in_a_process(streaming.WAYS_MODULE, {**task, "way": "raw"}, cap=16 << 20)["killed"]


def test_a_failure_says_what_failed(task: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="nothing like that"):
        in_a_process(streaming.WAYS_MODULE, {**task, "way": "nothing like that"})


def test_ratios_within_rounds() -> None:
    def row(number: int, share: float, way: str, decode: float, prefill: float) -> dict[str, Any]:
        return {
            "round": number, "share": share, "way": way, "prefill_s": prefill,
            "decode_tokens_per_s": decode, "of_disk": 0.5,
        }  # fmt: skip

    rows = [
        row(0, 1.0, "octavo", 10, 2), row(0, 0.5, "octavo", 6, 3), row(0, 0.5, "accelerate", 2, 9),
        row(1, 1.0, "octavo", 10, 2), row(1, 0.5, "octavo", 8, 2.2),
        {"round": 1, "share": 0.5, "way": "accelerate", "killed": True},
    ]  # fmt: skip
    found = streaming._ratios(rows)
    assert found["decode_over_accelerate_at_50"] == 3.0
    assert found["prefill_over_resident_at_50"] == pytest.approx((1.5 + 1.1) / 2)
    assert found["of_disk_at_50"] == 0.5
    assert "decode_over_transformers_at_50" not in found


def test_both_claims_share_their_arguments() -> None:
    parser = argparse.ArgumentParser()
    streaming.add_arguments(parser)
    streaming_batch.add_arguments(parser)
    assert parser.parse_args(["--streaming-shape", "1b"]).streaming_shape == "1b"
