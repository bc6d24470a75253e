"""The list of policies that a user can name."""

from __future__ import annotations

import subprocess
import sys

from octavo.memory.policies import ONLINE, Belady


def test_each_is_listed_under_its_own_name() -> None:
    for name, factory in ONLINE.items():
        policy = factory(100)
        assert policy.name == name
        assert policy.capacity == 100
    assert Belady.name not in ONLINE


def test_policies_need_no_torch() -> None:
    code = (
        "import sys, octavo.memory.policies, octavo.memory.replay, octavo.memory.trace; "
        "print(sorted({'torch', 'zstandard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
