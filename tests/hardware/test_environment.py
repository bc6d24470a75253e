"""Variables for debugging and for torch's allocator: which, when, and when it is too late."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types

import pytest

from octavo.errors import ConfigError
from octavo.hardware.accelerators import DeviceKind
from octavo.hardware.environment import (
    Variable,
    allocator,
    apply,
    debug_variables,
    device_in_use,
)

GB = 10**9
PLAN = {
    "device_bytes": 12 * GB,
    "budget_bytes": 8 * GB,
    "resident_bytes": 6 * GB,
    "largest_bytes": 600 << 20,
}


@pytest.fixture
def torch_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = types.SimpleNamespace(is_initialized=lambda: True)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))


def test_debugging_names_the_switch_of_each_maker() -> None:
    cuda = {one.name: one.value for one in debug_variables()}
    assert cuda["CUDA_LAUNCH_BLOCKING"] == "1"
    rocm = {one.name for one in debug_variables(DeviceKind.ROCM)}
    assert "AMD_SERIALIZE_KERNEL" in rocm
    assert "CUDA_LAUNCH_BLOCKING" not in rocm
    assert all(one.reason for kind in DeviceKind for one in debug_variables(kind))


def test_the_allocator_follows_the_plan() -> None:
    found = allocator(**PLAN, expandable=False)
    assert found.fraction == pytest.approx(8 / 12)
    (variable,) = found.variables
    assert variable.name == "PYTORCH_ALLOC_CONF"
    # Half of the largest tensor, in whole 16 MiB; a tenth over the resident share.
    assert variable.value == "max_split_size_mb:288,garbage_collection_threshold:0.85"
    assert "85%" in variable.reason


@pytest.mark.parametrize(
    ("resident", "largest", "value"),
    [
        (0, 0, "max_split_size_mb:32,garbage_collection_threshold:0.60"),
        (8 * GB, 9 << 30, "max_split_size_mb:512,garbage_collection_threshold:0.90"),
    ],
)
def test_within_what_torch_takes(resident: int, largest: int, value: str) -> None:
    plan = PLAN | {"resident_bytes": resident, "largest_bytes": largest}
    assert allocator(**plan, expandable=False).variables[0].value == value


def test_segments_that_grow_stand_alone() -> None:
    (variable,) = allocator(**PLAN, expandable=True).variables
    assert variable.value == "expandable_segments:True"
    by_default = allocator(**PLAN).variables[0].value
    assert ("expandable" in by_default) == (sys.platform == "linux")
    assert "expandable" not in allocator(**PLAN, kind=DeviceKind.ROCM).variables[0].value


@pytest.mark.parametrize(
    ("version", "kind", "name"),
    [
        ("2.13.0+cu130", DeviceKind.CUDA, "PYTORCH_ALLOC_CONF"),
        ("2.9.0", DeviceKind.ROCM, "PYTORCH_ALLOC_CONF"),
        ("2.8.1+cu126", DeviceKind.CUDA, "PYTORCH_CUDA_ALLOC_CONF"),
        ("2.6", DeviceKind.ROCM, "PYTORCH_HIP_ALLOC_CONF"),
    ],
)
def test_the_name_that_this_torch_reads(version: str, kind: DeviceKind, name: str) -> None:
    assert allocator(**PLAN, kind=kind, torch_version=version).variables[0].name == name


def test_others_have_another_allocator_and_a_whole_device_no_fraction() -> None:
    assert allocator(**PLAN, kind=DeviceKind.MPS).variables == ()
    whole = PLAN | {"budget_bytes": 12 * GB}
    assert allocator(**whole).fraction is None


@pytest.mark.parametrize(
    "change", [{"budget_bytes": 13 * GB}, {"budget_bytes": 0}, {"resident_bytes": 9 * GB}]
)
def test_numbers_that_no_plan_has(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="resident <= budget <= device"):
        allocator(**(PLAN | change))


def test_torch_itself_takes_the_settings() -> None:
    """The real parser of the installed torch, where it says what it read."""
    torch = pytest.importorskip("torch")
    read = getattr(torch._C, "_accelerator_setAllocatorSettings", None)
    if read is None:
        pytest.skip("this torch cannot be asked")
    before = torch._C._accelerator_getAllocatorSettings()
    try:
        for expandable in (False, True):
            read(allocator(**PLAN, expandable=expandable).variables[0].value)
        with pytest.raises((RuntimeError, ValueError)):
            read("max_split_size_mb:1")
    finally:
        read(before or "expandable_segments:False")


def test_set_for_this_process() -> None:
    environ = {"B": "2", "C": "mine"}
    wanted = [Variable("A", "1", ""), Variable("B", "2", ""), Variable("C", "3", "")]
    notes = apply(wanted, environ)
    assert environ == {"A": "1", "B": "2", "C": "mine"}
    assert notes == ("C=mine is kept; recommended: 3",)


def test_too_late(torch_in_use: None) -> None:
    environ: dict[str, str] = {}
    assert device_in_use()
    (note,) = apply(debug_variables(), environ)
    assert environ == {}
    assert re.search("too late.*CUDA_LAUNCH_BLOCKING=1 ", note)
    with pytest.raises(ConfigError, match="start again with CUDA_LAUNCH_BLOCKING=1"):
        apply(debug_variables(), environ, strict=True)
    # What is already as wanted is not too late.
    environ = {one.name: one.value for one in debug_variables()}
    assert apply(debug_variables(), environ, strict=True) == ()


def test_never_loads_torch() -> None:
    code = (
        "import sys; from octavo.hardware.environment import apply, debug_variables; "
        "import os; print(apply(debug_variables()), os.environ['CUDA_LAUNCH_BLOCKING'], "
        "'torch' in sys.modules)"
    )
    clean = {name: value for name, value in os.environ.items() if "CUDA" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean
    )
    assert done.stdout.strip() == "() 1 False"
