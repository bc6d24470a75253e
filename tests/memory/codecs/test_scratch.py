"""What a codec takes beside input and output, seen by the system: peak memory of a process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from octavo.memory.codecs import CODECS

#: Noise of the allocator and of threads that start.
NOISE = 2 << 20

_PROGRAM = """
import json, sys
import torch
torch.set_num_threads(1)
from octavo.memory.codecs import CODECS
from octavo.memory.codecs.registry import decode

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

def peak_of(work):
    with open("/proc/self/clear_refs", "w") as reset:
        reset.write("5")
    before = status("VmRSS")
    result = work()
    return status("VmHWM") - before, result

rows = int(sys.argv[1])
tensor = torch.randn(rows // 64, 1024).repeat(64, 1)
back = torch.zeros_like(tensor)
small = tensor[:64].clone()
found = {}
for name, codec in CODECS.items():
    if name == "lowrank":
        continue
    decode(codec.encode(small))
    encoding, payload = peak_of(lambda: codec.encode(tensor))
    decoding, _ = peak_of(lambda: decode(payload, back))
    allowed = codec.scratch(tensor.dtype, tuple(tensor.shape))
    found[name] = [encoding - payload.nbytes, decoding, allowed]
    del payload
turned = tensor[: rows // 4].t()
for name in ("int8", "zstd", "sparse"):
    codec = CODECS[name]
    encoding, payload = peak_of(lambda: codec.encode(turned))
    allowed = codec.scratch(turned.dtype, tuple(turned.shape))
    found[name + " turned"] = [encoding - payload.nbytes, 0, allowed]
    del payload
low = torch.randn(800, 8) @ torch.randn(8, 700)
codec = CODECS["lowrank"]
codec.encode(low[:100])
encoding, payload = peak_of(lambda: codec.encode(low))
found["lowrank"] = [encoding - payload.nbytes, 0, codec.scratch(low.dtype, tuple(low.shape))]
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_the_peak_is_within_scratch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "32768"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert set(CODECS) <= set(found)
    for name, (encoding, decoding, allowed) in found.items():
        assert encoding <= allowed + NOISE, (name, encoding, allowed)
        assert decoding <= allowed + NOISE, (name, decoding, allowed)
        if name != "lowrank":
            assert allowed <= 16 << 20, name
