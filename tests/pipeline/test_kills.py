"""Whole runs in processes of their own: full disks, kills and interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from doubles import DELAY, DOUBLE_WORKER, DoubleReader, draw_pdf, is_running, tree

from octavo.pipeline import process
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.convert import Converter, convert
from octavo.pipeline.events import Event, PageDone

CONFIG = PipelineConfig(pdf_dpi=72, save_manifest=True)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return draw_pdf(tmp_path / "book.pdf", 5)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_a_full_disk_in_a_real_process(book: Path, out: Path, tmp_path: Path) -> None:
    """RLIMIT_FSIZE lets no file grow past 48 KiB: the journal or a report hits it."""

    book = draw_pdf(tmp_path / "long.pdf", 12)
    done = subprocess.run(
        [sys.executable, _script(tmp_path), str(book), str(out)],
        env={**os.environ, "FILE_LIMIT": str(48 * 1024)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert "OutputError" in done.stdout
    (outcome,) = convert([book], out, CONFIG, reader=DoubleReader())
    assert outcome.status == "ok"


# Kills.


def _script(tmp_path: Path) -> str:
    """A program without a ``__main__`` guard that converts argv[1] into argv[2]."""
    script = tmp_path / "convert_it.py"
    script.write_text(
        "import os, resource, signal, sys\n"
        "if limit := int(os.environ.get('FILE_LIMIT', 0)):\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import octavo\n"
        "from doubles import DOUBLE_WORKER\n"
        "from octavo.pipeline import process\n"
        "process.COMMAND = DOUBLE_WORKER\n"
        "config = octavo.PipelineConfig(pdf_dpi=72, save_manifest=True, batch_size=4)\n"
        "def tell(event):\n"
        "    print(type(event).__name__, getattr(event, 'number', ''),\n"
        "          getattr(event, 'resumed', ''), getattr(event, 'failure', ''), flush=True)\n"
        "for outcome in octavo.convert([sys.argv[1]], sys.argv[2], config, on_event=tell):\n"
        "    pass\n"
    )
    return str(script)


def test_kill_9_at_any_moment_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", DOUBLE_WORKER)
    book = draw_pdf(tmp_path / "book.pdf", 12)
    script = _script(tmp_path)
    environment = {**os.environ, DELAY: "0.02"}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    config = PipelineConfig(pdf_dpi=72, save_manifest=True, batch_size=4)
    resumed = 0
    for lines in (1, 7, 10, 13):
        command = [sys.executable, script, str(book), str(killed)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run_:
            assert run_.stdout is not None
            for _ in range(lines):
                line = run_.stdout.readline()
                if line.startswith("DocumentOpened"):
                    assert int(line.split()[1]) >= resumed, "no finished page is lost"
                    resumed = int(line.split()[1])
            run_.kill()
    assert resumed > 0
    with Converter(config) as converter:
        outcomes = [next(converter.convert([book], out)) for out in (whole, killed)]
    assert [outcome.status for outcome in outcomes] == ["ok", "ok"]
    assert outcomes[1].resumed >= resumed
    assert tree(killed) == tree(whole)


def test_the_worker_killed_in_the_middle_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", DOUBLE_WORKER)
    monkeypatch.setenv(DELAY, "0.02")
    book = draw_pdf(tmp_path / "book.pdf", 6)

    def kill(event: Event) -> None:
        if isinstance(event, PageDone) and event.number == 3:
            assert converter.worker_pid is not None
            os.kill(converter.worker_pid, signal.SIGKILL)

    for name, listener in (("calm", None), ("killed", kill)):
        with Converter(CONFIG, on_event=listener) as converter:
            (outcome,) = converter.convert([book], tmp_path / name)
        assert outcome.status == "ok"
    assert tree(tmp_path / "calm") == tree(tmp_path / "killed")


def test_an_interrupt_stops_the_worker_and_keeps_the_pages(
    book: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", DOUBLE_WORKER)
    pids: list[int | None] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, PageDone) and event.number == 3:
            pids.append(converter.worker_pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Converter(CONFIG, on_event=interrupt) as converter:
        list(converter.convert([book], out))
    assert pids[0] is not None
    assert not is_running(pids[0])
    with Converter(CONFIG) as converter:
        (outcome,) = converter.convert([book], out)
    assert outcome.resumed == 3
