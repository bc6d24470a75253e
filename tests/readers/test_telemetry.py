from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_onnxruntime_leaves_nothing_behind(tmp_path: Path) -> None:
    """It writes a session file for its telemetry when it is imported, unless told not to."""
    code = "import octavo.readers, onnxruntime"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
