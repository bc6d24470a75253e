"""The output head: the same numbers, without a second copy of the matrix."""

from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from octavo.models.heads import flatten_heads  # noqa: E402

_PEAK = """
import torch
from torch import nn
from octavo.memory.buffers import return_freed_memory
from octavo.models.heads import flatten_heads
return_freed_memory()
head = nn.Linear(1024, 100_000, bias=False, dtype=torch.bfloat16).requires_grad_(False)
small = nn.Linear(1024, 100, bias=False, dtype=torch.bfloat16).requires_grad_(False)
if {flat}:
    flatten_heads(head)
x = torch.randn(1, 9, 1024, dtype=torch.bfloat16)[:, -1:]
small(x), head.weight.sum()
def resident(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if key in line)
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
head(x)
print(resident("VmHWM") - before)
"""


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_same_numbers(dtype: torch.dtype, bias: bool) -> None:
    torch.manual_seed(0)
    head = nn.Linear(640, 7001, bias=bias).to(dtype)
    plain = nn.Linear(640, 7001, bias=bias).to(dtype)
    plain.load_state_dict(head.state_dict())
    holder = nn.Sequential(head)
    flatten_heads(holder)
    assert "forward" in vars(head)
    whole = torch.randn(2, 40, 640, dtype=dtype)
    for x in (whole, whole[:, -1:], whole[:1, -1:], whole[0], whole[0, 0]):
        with torch.inference_mode():
            made, wanted = holder(x).double(), plain(x).double()
        assert made.shape == wanted.shape
        assert (made - wanted).abs().max() <= 2**-7 * wanted.abs().max()


def test_small_layers_are_left_alone() -> None:
    layers = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64))
    flatten_heads(layers)
    assert "forward" not in vars(layers[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_second_copy_of_the_matrix() -> None:
    def peak_kb(flat: bool) -> int:
        command = [sys.executable, "-c", _PEAK.format(flat=flat)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    matrix_kb = 1024 * 100_000 * 2 // 1024
    assert peak_kb(True) < 0.1 * matrix_kb
    if peak_kb(False) < 0.8 * matrix_kb:
        pytest.skip("this build of torch makes no copy")
