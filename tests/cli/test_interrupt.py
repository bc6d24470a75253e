"""Ctrl-C, sent to real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from reportlab.pdfgen.canvas import Canvas

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

PAGES = 150


@contextmanager
def spawned(arguments: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own; gone at the end, whatever the test found."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def event(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def interrupt(process: subprocess.Popen[str]) -> tuple[float, str]:
    """Ctrl-C to the whole group, as a terminal sends it; seconds to the end, and stderr."""
    sent = time.perf_counter()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    return time.perf_counter() - sent, err


def test_a_run_stops_in_time_and_the_same_command_goes_on(tmp_path: Path) -> None:
    canvas = Canvas(str(tmp_path / "long.pdf"))
    for number in range(1, PAGES + 1):
        for line in range(30):
            canvas.drawString(72, 760 - 20 * line, f"Line {line} of page {number} says a little.")
        canvas.showPage()
    canvas.save()
    command = [
        "-m",
        "octavo",
        "parse",
        "long.pdf",
        "--mode",
        "fast",
        "--batch-size",
        "2",
        "--no-html",
        "--json",
    ]

    with spawned(command, tmp_path) as process:
        while event(process)["event"] != "page_done":
            pass
        seconds, err = interrupt(process)
    assert process.returncode == 130
    assert seconds < 2
    assert "The same command goes on from there." in err
    assert "Traceback" not in err
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # no worker is left behind

    with spawned([*command, "--pages", "1-6"], tmp_path) as process:
        out, err = process.communicate(timeout=60)
    events = [json.loads(text) for text in out.splitlines()]
    assert process.returncode == 0, err
    assert events[0]["event"] == "document_started"
    assert events[0]["resumed"] >= 1
    assert events[-1]["pages"] == 6 - events[0]["resumed"]


STUCK = """
import hashlib
from octavo.cli._interrupt import ends_within
with ends_within(0.5, exit_code=130, last_words=lambda: print("last words", flush=True)):
    print("{}", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 200_000_000)  # a minute outside the interpreter
"""


def test_native_code_cannot_hold_the_process(tmp_path: Path) -> None:
    with spawned(["-c", STUCK], tmp_path) as process:
        assert event(process) == {}
        time.sleep(0.5)  # until it has left the interpreter
        sent = time.perf_counter()
        os.kill(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert time.perf_counter() - sent < 2
    assert out == "last words\n"
    assert process.returncode == 130


CALM = """
import signal, threading
from octavo.cli._interrupt import ends_within
with ends_within(0.1, exit_code=3, last_words=print):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    signal.raise_signal(signal.SIGUSR1)  # not Ctrl-C
assert signal.set_wakeup_fd(-1) == -1
assert threading.active_count() == 1
"""


def test_leaves_nothing_behind_without_ctrl_c(tmp_path: Path) -> None:
    with spawned(["-c", CALM], tmp_path) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
