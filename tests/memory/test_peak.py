"""What the process really holds keeps to the budget, not only what the ledger says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MIB = 1 << 20
VALUE, COUNT, BUDGET = 8 * MIB, 40, 160 * MIB

#: Values of twice the budget through every tier, in a process that nothing else has grown.
PROGRAM = """
import sys
from pathlib import Path
import torch
from octavo.memory import MemoryManager

level, folder, value, count, budget = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])

def held(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

with MemoryManager(
    device=budget // 2, host=budget // 2, disk=(folder, 1 << 30), on="cpu", level=level
) as memory:
    memory["first"] = torch.randn(1 << 18)
    memory.flush()
    base = held("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for number in range(count):
        memory[number] = torch.randn(value // 4).index_fill_(0, torch.tensor(0), number)
    for number in [*range(count), *range(count)]:
        assert float(memory[number][0]) == number
    states = memory.stats().places
    print(states["device"].peak + states["host"].peak, held("VmHWM") - base)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("level", ["minimal", "aggressive"])
def test_the_measured_peak_keeps_to_the_budget(tmp_path: Path, level: str) -> None:
    words = [level, str(tmp_path), str(VALUE), str(COUNT), str(BUDGET)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    ledger, measured = map(int, done.stdout.split())
    assert ledger <= BUDGET
    # A value that is being made is the caller's until it is put.
    assert measured <= BUDGET + 2 * VALUE
