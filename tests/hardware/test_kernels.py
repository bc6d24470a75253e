"""Which attention kernels are said to be there, by device and by what is installed."""

from __future__ import annotations

import pytest

from octavo.hardware.accelerators import Accelerator, DeviceKind
from octavo.hardware.asking import Answer
from octavo.hardware.kernels import attention_kernels

TORCH = Answer({"version": "2.13", "flash": True, "cpu_flash": True})
EVERYTHING = {
    "torch": TORCH,
    "triton": Answer({"version": "3.5"}),
    "flash_attn": Answer({"version": "2.8"}),
    "xformers": Answer({"version": "0.0.33"}),
}


def card(*capability: int, kind: DeviceKind = DeviceKind.CUDA) -> Accelerator:
    major, minor = capability or (0, 0)
    return Accelerator(kind, "Drawn", None, None, (major, minor) if capability else None, None)


def usable(device: Accelerator | None, answers: dict[str, Answer]) -> dict[str, bool | None]:
    return {one.name: one.usable for one in attention_kernels(device, answers=answers)}


@pytest.mark.parametrize(
    ("capability", "absent"),
    [
        ((9, 0), set()),
        ((8, 0), set()),
        ((7, 5), {"sdpa-flash", "flash_attention_2"}),
        ((6, 1), {"sdpa-flash", "flash_attention_2", "triton", "flex_attention"}),
    ],
)
def test_what_a_card_is_too_old_for(capability: tuple[int, int], absent: set[str]) -> None:
    found = usable(card(*capability), EVERYTHING)
    assert {name for name, can in found.items() if not can} == absent
    assert {"eager", "sdpa", "sdpa-math", "sdpa-mem-efficient", "xformers"} <= set(found) - absent


def test_packages_that_are_not_there_or_do_not_load() -> None:
    answers = {"torch": TORCH, "flash_attn": Answer(None, "undefined symbol")}
    found = {one.name: one for one in attention_kernels(card(9, 0), answers=answers)}
    assert (found["flash_attention_2"].usable, found["flash_attention_2"].why) == (
        False,
        "does not load: undefined symbol",
    )
    assert found["xformers"].why == "not installed"
    assert found["flex_attention"].why == "triton: not installed"
    assert found["sdpa-flash"].usable


def test_on_the_processor() -> None:
    found = usable(None, EVERYTHING)
    assert found["sdpa-flash"]
    assert found["flex_attention"] is None
    assert not found["sdpa-mem-efficient"]
    assert not found["flash_attention_2"]
    assert not usable(None, {"torch": Answer({"flash": True})})["sdpa-flash"]


def test_on_others() -> None:
    mps = usable(card(kind=DeviceKind.MPS), EVERYTHING)
    assert not mps["flash_attention_2"]
    assert mps["sdpa-flash"] is None
    xpu = usable(card(kind=DeviceKind.XPU), EVERYTHING)
    assert xpu["triton"]
    assert xpu["flex_attention"]
    assert not xpu["flash_attention_2"]


@pytest.mark.parametrize("answers", [{}, {"torch": Answer(None, "libc10.so")}])
def test_without_torch_there_is_none(answers: dict[str, Answer]) -> None:
    found = attention_kernels(None, answers=answers)
    assert not any(one.usable for one in found)
    assert all((one.why or "").startswith("torch ") for one in found)
