"""The table of platforms, what it recommends, and what is refused with which reason."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from octavo.errors import ConfigError
from octavo.hardware import Cpu, Disk, Hardware, Memory
from octavo.hardware.accelerators import Accelerator, DeviceKind
from octavo.hardware.architectures import nvidia_limits
from octavo.hardware.kernels import AttentionKernel
from octavo.hardware.platforms import (
    Level,
    Platform,
    cell,
    detected,
    family_names,
    recommended,
)
from octavo.hardware.spec import Precision
from octavo.models.registry import families

GB = 10**9


def machine(*, memory: int = 32 * GB, bf16: bool | None = True, **cpu: Any) -> Hardware:
    return Hardware(
        cpu=dataclasses.replace(Cpu("Drawn", 8, 4, 8, None, True, True, bf16, True), **cpu),
        memory=Memory(memory, memory, None),
        disk=Disk(Path("/"), None, None),
        python="3.11",
        implementation="CPython",
        platform="Drawn",
    )


def card(*capability: int, total: int = 24 * GB) -> Accelerator:
    major, minor = capability
    limits = nvidia_limits((major, minor))
    assert limits is not None
    return Accelerator(
        DeviceKind.CUDA,
        "Drawn",
        total,
        total,
        (major, minor),
        limits.precisions,
        limits=limits.reasons,
        architecture=limits,
    )


PASCAL, TURING, HOPPER = card(6, 1, total=11 * GB), card(7, 5, total=16 * GB), card(9, 0)


def refused(family: str, platform: str, **arguments: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        recommended(family, platform, **arguments)
    assert caught.value.next_step
    return str(caught.value)


def wrong(family: str, platform: str, overrides: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        recommended(family, platform, overrides=overrides)
    return str(caught.value)


def test_every_cell_is_whole() -> None:
    for family in family_names():
        for platform in Platform:
            found = cell(family, platform)
            if found.level is Level.HIGH:
                assert found.reason is None
            else:
                assert found.reason
            if found.level is Level.NONE:
                assert found.precisions == {}
                continue
            assert found.precisions
            settings = recommended(family, platform)
            assert settings.precisions == found.precisions
            assert settings.batch >= 1
            assert (settings.kv_tokens is None) == (family in ("clip", "x-clip", "sentence"))


def test_families_are_those_that_load_and_take_what_they_say() -> None:
    """The table and the code of the families are written apart; they must not part."""
    for family in families():
        assert family.name in family_names()
        modes = {mode.value for mode in family.modes}
        parts = set(cell(family.name, Platform.CUDA).precisions)
        assert ("vision" in parts) == bool({"vision", "vision-speech"} & modes)
        assert ("audio" in parts) == bool({"speech", "vision-speech"} & modes)


def test_only_what_is_tried_is_said_to_be() -> None:
    assert [p for p in Platform if cell("text", p).tried] == [Platform.CPU]
    for platform in ("openvino", "qnn", "webnn", "webgpu"):
        assert {cell(name, platform).level for name in family_names()} == {Level.NONE}


def test_on_a_current_card() -> None:
    settings = recommended("qwen3-vl", "cuda", device=HOPPER, hardware=machine())
    assert settings.precisions == {"language": Precision.BF16, "vision": Precision.BF16}
    assert (settings.capture, settings.threads, settings.lazy) == ("graphs", None, False)


def test_on_a_card_without_bfloat16() -> None:
    settings = recommended("qwen3-vl", "cuda", device=TURING)
    assert set(settings.precisions.values()) == {Precision.FP16}
    assert any("language in fp16" in note for note in settings.notes)
    assert any("no flash attention" in note for note in settings.notes)
    # Gemma's activations do not fit float16, so there it is the next one.
    gemma = recommended("gemma3n", "cuda", device=TURING)
    assert set(gemma.precisions.values()) == {Precision.FP32}


def test_on_processors_with_and_without_bfloat16() -> None:
    able = recommended("qwen3-vl", "cpu", hardware=machine(bf16=True))
    assert able.precisions == {"language": Precision.INT8, "vision": Precision.BF16}
    plain = recommended("qwen3-vl", "cpu", hardware=machine(bf16=False))
    assert plain.precisions["vision"] is Precision.FP32
    unknown = recommended("qwen3-vl", "cpu", hardware=machine(bf16=None))
    assert unknown.precisions["vision"] is Precision.BF16


@pytest.mark.parametrize(("power", "threads"), [("performance", 8), ("balanced", 4), ("low", 2)])
def test_power_grants_threads(power: str, threads: int) -> None:
    settings = recommended("text", "cpu", hardware=machine(), overrides={"power": power})
    assert settings.threads == threads
    limited = machine(quota=1.0)
    assert recommended("text", "cpu", hardware=limited, overrides={"power": power}).threads == 1
    assert recommended("text", "cpu", overrides={"power": power}).threads is None


def test_on_a_small_machine_one_component_at_a_time() -> None:
    small = recommended("qwen3-vl", "cpu", hardware=machine(memory=8 * GB))
    assert (small.lazy, small.kv_tokens, small.long_edge_px) == (True, 2048, 1024)
    assert small.precisions["language"] is Precision.INT8
    assert any("8.0 GB" in note for note in small.notes)
    device = recommended("qwen3-vl", "cuda", device=card(8, 6, total=8 * GB))
    assert (device.batch, device.precisions["language"]) == (1, Precision.INT8)
    # An encoder needs little and stays as it is.
    clip = recommended("clip", "cpu", hardware=machine(memory=4 * GB))
    assert (clip.batch, clip.kv_tokens, clip.lazy) == (16, None, False)
    assert not recommended("qwen3-vl", "cpu", hardware=machine(memory=16 * GB)).lazy


def test_overrides_by_name() -> None:
    settings = recommended(
        "gemma3n",
        "cuda",
        device=HOPPER,
        overrides={
            "precision": "fp32",
            "llm_precision": "int4",
            "batch": 3,
            "kv_tokens": 999,
            "attention": "eager",
            "capture": "compile",
            "lazy": True,
            "long_edge_px": 640,
            "threads": 5,
        },
    )
    assert settings.precisions == {
        "language": Precision.INT4,
        "vision": Precision.FP32,
        "audio": Precision.FP32,
    }
    assert (settings.batch, settings.kv_tokens, settings.attention) == (3, 999, "eager")
    assert (settings.capture, settings.lazy, settings.long_edge_px) == ("compile", True, 640)
    assert settings.threads == 5


@pytest.mark.parametrize(
    ("family", "platform", "overrides", "says"),
    [
        ("gema3n", "cpu", {}, "did you mean gemma3n?"),
        ("text", "cudo", {}, "did you mean cuda?"),
        ("text", "cpu", {"kv_token": 5}, "did you mean kv_tokens?"),
        ("text", "cpu", {"llm_precision": "bf61"}, "did you mean bf16?"),
        ("text", "cpu", {"attention": "flash"}, "no attention 'flash'"),
        ("text", "cpu", {"power": "fast"}, "no power 'fast'"),
        ("text", "cpu", {"capture": "graph"}, "did you mean graphs?"),
        ("text", "cpu", {"vision_precision": "bf16"}, "text has no vision component"),
        ("text", "cpu", {"batch": 0}, "batch must be at least 1"),
        ("text", "cpu", {"batch": True}, "batch must be a whole number"),
        ("text", "cpu", {"batch": None}, "batch must be a whole number"),
        ("text", "cpu", {"kv_tokens": "many"}, "kv_tokens must be a whole number"),
        ("clip", "cpu", {"kv_tokens": 100}, "clip has no KV cache"),
    ],
)
def test_wrong_names_and_values(
    family: str, platform: str, overrides: dict[str, Any], says: str
) -> None:
    assert says in wrong(family, platform, overrides)


@pytest.mark.parametrize(
    ("family", "platform", "arguments", "says"),
    [
        ("qwen3-vl", "cuda", {"device": PASCAL, "overrides": {"precision": "bf16"}}, "no bfloat16"),
        ("qwen3-vl", "cuda", {"device": TURING, "overrides": {"vision_precision": "bf16"}},
         "no bfloat16"),
        ("qwen3-vl", "mps", {"overrides": {"llm_precision": "int4"}}, "4-bit weights"),
        ("gemma3n", "cuda", {"overrides": {"llm_precision": "fp16"}}, "65504"),
        ("whisper", "cpu", {"overrides": {"audio_precision": "int4"}}, "no 4-bit weights"),
        ("whisper", "mps", {}, "CTranslate2"),
        ("text", "webgpu", {}, "no runtime for browsers"),
        ("clip", "openvino", {}, "does not convert"),
        ("llava", "cpu", {"inputs": ["text", "video"]}, "llava takes no video"),
        ("whisper", "cpu", {"inputs": ["image"]}, "whisper takes no image"),
        ("text", "cuda", {"device": TURING, "overrides": {"attention": "flash_attention_2"}},
         "8.0"),
        ("text", "cpu", {"overrides": {"attention": "flash_attention_2"}}, "no kernels for cpu"),
        ("text", "cuda", {"overrides": {"attention": "flash_attention_2", "precision": "fp32"}},
         "not in fp32"),
        ("text", "cuda", {
            "device": HOPPER,
            "kernels": [AttentionKernel("flash_attention_2", False, "not installed")],
            "overrides": {"attention": "flash_attention_2"},
        }, "not installed"),
        ("text", "cpu", {"overrides": {"capture": "graphs"}}, "CUDA graphs are not for cpu"),
        ("text", "cuda", {"device": PASCAL, "overrides": {"capture": "compile"}}, "7.0"),
        ("whisper", "cuda", {"overrides": {"capture": "compile"}}, "not captured"),
        ("whisper", "cpu", {"overrides": {"attention": "eager"}}, "its own attention"),
    ],
)  # fmt: skip
def test_impossible_combinations(
    family: str, platform: str, arguments: dict[str, Any], says: str
) -> None:
    assert says in refused(family, platform, **arguments)


def test_possible_beside_the_impossible() -> None:
    """Each refusal is of the combination, not of its parts."""
    flash = {"attention": "flash_attention_2"}
    kernels = [AttentionKernel("flash_attention_2", True, "2.8")]
    assert recommended("text", "cuda", device=HOPPER, kernels=kernels, overrides=flash)
    assert recommended("qwen3-vl", "cuda", device=PASCAL, overrides={"precision": "fp16"})
    assert recommended("qwen3-vl", "cpu", overrides={"llm_precision": "int4"})
    assert recommended("qwen3-vl", "cpu", inputs=["video", "image"])
    assert recommended("text", "cuda", device=TURING, overrides={"capture": "compile"})
    assert recommended("text", "cuda", device=HOPPER, overrides={"precision": "bf16"})


def test_slow_is_said_and_not_refused() -> None:
    settings = recommended(
        "text", "cpu", hardware=machine(fp16=False), overrides={"precision": "fp16"}
    )
    assert settings.precisions == {"language": Precision.FP16}
    assert any("emulated" in note for note in settings.notes)
    fast = recommended("text", "cpu", hardware=machine(fp16=True), overrides={"precision": "fp16"})
    assert not any("emulated" in note for note in fast.notes)


def test_which_platforms_are_here() -> None:
    unused = dataclasses.replace(HOPPER, ready=False)
    coreml = Accelerator(DeviceKind.COREML, "x", None, None, None, None, ready=None)
    assert detected([]) == {Platform.CPU}
    assert detected([unused, coreml]) == {Platform.CPU}
    assert detected([HOPPER]) == {Platform.CPU, Platform.CUDA}
