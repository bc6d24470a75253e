"""Tools run in their own processes, and one that dies or is missing is an answer, not a crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from benchmarks.documents import drawn, rivals
from benchmarks.documents.memory import Sampler, Trace, resident


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return drawn.draw("invoice.pdf", tmp_path)


def test_drawing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("figure.pdf", "memo_faint.pdf"):
        one = drawn.draw(name, tmp_path / "one").read_bytes()
        assert one == drawn.draw(name, tmp_path / "two").read_bytes()


def test_a_tool_answers_and_reports_what_it_cannot_read(page: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.4 nothing more")
    with rivals.Tool("text-layer", sys.executable) as tool:
        answer = tool.convert(page)
        assert "Quillfeather Paper Supply" in answer.markdown
        assert answer.seconds > 0
        assert "PdfiumError" in tool.convert(broken).error
        assert tool.convert(page).markdown == answer.markdown


def test_a_tool_that_dies_has_failed_on_the_file(page: Path) -> None:
    with rivals.Tool("text-layer", sys.executable) as tool:
        os.kill(tool.pid, signal.SIGKILL)
        assert tool.convert(page).error == "the tool died"
        assert tool.convert(page).error == "the tool died"


def test_a_tool_that_does_not_start_says_why() -> None:
    with pytest.raises(rivals.ToolUnavailable, match="text-layer does not start"):
        rivals.Tool("text-layer", "/bin/false").__enter__()


def test_answers_are_kept_by_the_bytes_of_the_file(page: Path, tmp_path: Path) -> None:
    cache = rivals.Cache(tmp_path / "answers")
    with rivals.Tool("text-layer", sys.executable) as tool:
        first = cache.convert(tool, page)
        os.kill(tool.pid, signal.SIGKILL)
        assert cache.convert(tool, page) == first
        page.write_bytes(page.read_bytes() + b"\n")
        assert cache.convert(tool, page).error == "the tool died"


def test_slope_of_a_line() -> None:
    seconds = [0.05 * n for n in range(200)]
    trace = Trace(seconds, [int(100e6 + 2e6 * second) for second in seconds])
    assert trace.slope_mb_per_page(50) == pytest.approx(2 * seconds[-1] / 50, rel=1e-3)
    assert trace.peak_mb == pytest.approx(100 + 2 * seconds[-1], rel=1e-3)
    assert Trace().slope_mb_per_page(10) == 0.0


def test_sampler_counts_children() -> None:
    held = "x = bytearray(60_000_000); print('up', flush=True); input()"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        sampler = Sampler(parent.pid)
        sampler.start()
        assert sampler.stop().peak_mb > 60
        parent.communicate(b"\n")
    with pytest.raises(psutil.NoSuchProcess):
        resident(psutil.Process(parent.pid))
