"""The worker process: a crash, a hang or a talkative library costs one page at most."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from doubles import DELAY, DOUBLE_WORKER, FAULTS, DoubleReader, draw_pdf, is_running

from octavo.errors import BrokenFile, MissingDependency, WorkerCrashed
from octavo.pipeline import process, supervise
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.frames import PageRead, Started
from octavo.pipeline.session import BatchLost
from octavo.pipeline.supervise import Inline, Isolated, read_batches
from octavo.types import Failure, PageResult

CONFIG = PipelineConfig(save_pages=False, save_crops=False)


@pytest.fixture
def isolated(monkeypatch: pytest.MonkeyPatch) -> Iterator[Isolated]:
    monkeypatch.setattr(process, "COMMAND", DOUBLE_WORKER)
    reading = Isolated()
    yield reading
    reading.close()


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return draw_pdf(tmp_path / "book.pdf", 8)


def read(reading: Isolated | Inline, book: Path, config: PipelineConfig) -> dict[int, str]:
    """Number → text, or the failure's name."""
    count = reading.open(book, config)
    results = [page.result for page in reading.read(tuple(range(1, count + 1)), book.parent)]
    numbers = [result.number for result in results]
    assert sorted(numbers) == list(range(1, count + 1)), "each page exactly once"
    return {r.number: r.failure.error if r.failure else r.elements[0].text for r in results}


def expected(**failures: str) -> dict[int, str]:
    return {n: failures.get(f"p{n}", f"Folio {n} of the book.") for n in range(1, 9)}


def test_reads_every_page_and_one_process_serves_many_documents(
    isolated: Isolated, book: Path, tmp_path: Path
) -> None:
    assert read(isolated, book, CONFIG) == expected()
    pid = isolated.pid
    other = draw_pdf(tmp_path / "other.pdf", 8)
    assert read(isolated, other, CONFIG) == expected()
    assert isolated.pid == pid
    assert pid != os.getpid()


def test_closing_ends_the_process(isolated: Isolated, book: Path) -> None:
    read(isolated, book, CONFIG)
    pid = isolated.pid
    assert pid is not None
    assert is_running(pid)
    isolated.close()
    assert not is_running(pid)
    assert isolated.pid is None


def test_a_segfault_costs_its_page(
    isolated: Isolated, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULTS, "4:segv")
    assert read(isolated, book, CONFIG) == expected(p4="WorkerCrashed")


def test_a_crash_that_does_not_come_again_costs_nothing(
    isolated: Isolated, book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULTS, f"4:once={tmp_path / 'crashed'}")
    assert read(isolated, book, CONFIG) == expected()
    assert (tmp_path / "crashed").exists()


def test_the_failure_names_the_signal(
    isolated: Isolated, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULTS, "1:segv")
    isolated.open(book, CONFIG)
    (page,) = isolated.read((1,), book.parent)
    assert page.result.failure is not None
    assert "SIGSEGV" in page.result.failure.what


def test_a_hang_ends_at_the_time_limit(
    isolated: Isolated, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULTS, "2:hang,7:hang")
    config = PipelineConfig(save_pages=False, save_crops=False, page_timeout_s=0.5)
    started = time.monotonic()
    assert read(isolated, book, config) == expected(p2="PageTimeout", p7="PageTimeout")
    assert time.monotonic() - started < 10


def test_a_page_that_takes_all_memory_costs_itself(
    isolated: Isolated, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULTS, "4:hoard")
    config = PipelineConfig(
        save_pages=False, save_crops=False, worker_memory_mb=256, page_timeout_s=20
    )
    count = isolated.open(book, config)
    results = [page.result for page in isolated.read(tuple(range(1, count + 1)), book.parent)]
    assert {r.number: r.failure.error for r in results if r.failure} == {4: "WorkerCrashed"}
    (failure,) = (r.failure for r in results if r.failure)
    assert "over the limit of 256 MiB" in failure.what
    assert "worker_memory_mb" in (failure.next_step or "")


def test_the_limit_is_for_a_page_and_not_for_a_batch(
    isolated: Isolated, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DELAY, "0.1")
    config = PipelineConfig(save_pages=False, save_crops=False, page_timeout_s=0.6)
    assert read(isolated, book, config) == expected()


def test_a_stopped_worker_is_given_up(
    isolated: Isolated, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP stands for native code that holds the interpreter lock without end."""
    config = PipelineConfig(save_pages=False, save_crops=False, page_timeout_s=0.5, batch_size=1)
    isolated.open(book, config)
    stopped = isolated.pid
    assert stopped is not None
    os.kill(stopped, signal.SIGSTOP)
    # The page is never started, so the limit counts from the worker's silence.
    monkeypatch.setattr(supervise, "GRACE_S", 0.3)
    (page,) = isolated.read((1,), book.parent)
    assert page.result.failure is not None
    assert page.result.failure.error == "PageTimeout"
    assert not is_running(stopped)


def test_a_reader_that_raises_costs_its_page(
    isolated: Isolated, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULTS, "5:raise")
    assert read(isolated, book, CONFIG) == expected(p5="ZeroDivisionError")


def test_what_libraries_print_does_not_get_between_the_frames(
    isolated: Isolated, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FAULTS, "2:chatter,3:chatter")
    assert read(isolated, book, CONFIG) == expected()


def test_a_broken_file_is_refused_and_the_worker_lives(isolated: Isolated, tmp_path: Path) -> None:
    book = draw_pdf(tmp_path / "book.pdf", 8)
    read(isolated, book, CONFIG)
    pid = isolated.pid
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing more\n")
    with pytest.raises(BrokenFile):
        isolated.open(tmp_path / "broken.pdf", CONFIG)
    assert isolated.pid == pid
    assert read(isolated, book, CONFIG) == expected()


def test_leaving_in_the_middle_does_not_mix_documents(
    isolated: Isolated, book: Path, tmp_path: Path
) -> None:
    isolated.open(book, CONFIG)
    pages = isolated.read((1, 2, 3), book.parent)
    next(pages)
    del pages
    other = draw_pdf(tmp_path / "other.pdf", 8, word="Sheet")
    texts = set(read(isolated, other, CONFIG).values())
    assert texts == {f"Sheet {n} of the book." for n in range(1, 9)}


def test_a_worker_started_by_a_thread_outlives_it(isolated: Isolated, book: Path) -> None:
    thread = threading.Thread(target=isolated.open, args=(book, CONFIG))
    thread.start()
    thread.join()
    time.sleep(0.2)
    pages = [page.result.failure for page in isolated.read((1, 2), book.parent)]
    assert pages == [None, None]


def test_a_worker_that_cannot_start_says_why(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", (sys.executable, "-c", "import no_such_library"))
    with pytest.raises(MissingDependency, match="no_such_library"):
        Isolated().open(book, CONFIG)


def test_a_crash_while_opening_is_an_error_of_the_file(isolated: Isolated, book: Path) -> None:
    isolated.open(book, CONFIG)
    assert isolated.pid is not None
    os.kill(isolated.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashed, match="SIGKILL"):
        isolated.open(book, CONFIG)
    assert isolated.open(book, CONFIG) == 8, "the next document gets a new worker"


@pytest.mark.parametrize("busy", [False, True])
def test_the_worker_dies_with_its_parent(book: Path, tmp_path: Path, busy: bool) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from doubles import DOUBLE_WORKER\n"
        "from octavo.pipeline import process, supervise, config\n"
        "process.COMMAND = DOUBLE_WORKER\n"
        "reading = supervise.Isolated()\n"
        f"book = Path({str(book)!r})\n"
        "reading.open(book, config.PipelineConfig())\n"
        "print(reading.pid, flush=True)\n"
        f"list(reading.read((1,), book.parent)) if {busy} else sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, FAULTS: "1:hang"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.2)
        assert is_running(worker)
        parent.kill()
    deadline = time.monotonic() + 5
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(worker)


def test_inline_isolates_a_page_too(book: Path) -> None:
    reader = DoubleReader("5:raise", ahead=2)
    assert read(Inline(reader), book, CONFIG) == expected(p5="ZeroDivisionError")
    assert not reader.closed, "the reader is the caller's"


# The search for the culprit, without a process.

Attempt = Callable[[tuple[int, ...]], Iterator[Started | PageRead]]


def attempt_with(
    culprits: set[int], ahead: int, calls: list[tuple[int, ...]], **how: bool
) -> Attempt:
    """An attempt by a reader that starts ``ahead`` pages before it gives one back."""

    def attempt(batch: tuple[int, ...]) -> Iterator[Started | PageRead]:
        calls.append(batch)
        started = 0
        for at, number in enumerate(batch):
            while started < min(len(batch), at + ahead + 1):
                yield Started(batch[started])
                started += 1
            if number in culprits:
                raise BatchLost(Failure("PageTimeout", "too long"), **how)
            yield PageRead(PageResult(number, 1.0, 1.0))

    return attempt


def statuses(pages: Iterator[PageRead]) -> dict[int, bool]:
    seen: dict[int, bool] = {}
    for page in pages:
        assert page.result.number not in seen
        seen[page.result.number] = page.result.failure is None
    return seen


@pytest.mark.parametrize("ahead", [0, 1, 2, 9])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("fleeting", [False, True])
@pytest.mark.parametrize("culprits", [set(), {1}, {4, 5}, {10}, set(range(1, 11))])
def test_only_the_culprits_fail(
    ahead: int, batch_size: int, fleeting: bool, culprits: set[int]
) -> None:
    calls: list[tuple[int, ...]] = []
    attempt = attempt_with(culprits, ahead, calls, fleeting=fleeting)
    got = statuses(read_batches(tuple(range(1, 11)), batch_size, attempt))
    assert got == {n: n not in culprits for n in range(1, 11)}


def test_a_certain_culprit_is_not_tried_again() -> None:
    calls: list[tuple[int, ...]] = []
    list(read_batches((1, 2, 3), 8, attempt_with({2}, 0, calls)))
    assert calls == [(1, 2, 3), (3,)]


def test_a_crash_is_tried_once_more_alone() -> None:
    calls: list[tuple[int, ...]] = []
    list(read_batches((1, 2, 3), 8, attempt_with({2}, 0, calls, fleeting=True)))
    assert calls == [(1, 2, 3), (2,), (3,)]


def test_a_page_that_the_reader_leaves_out_is_a_failure() -> None:
    def attempt(batch: tuple[int, ...]) -> Iterator[Started | PageRead]:
        for number in batch:
            yield Started(number)
            if number != 2:
                yield PageRead(PageResult(number, 1.0, 1.0))

    assert statuses(read_batches((1, 2, 3), 8, attempt)) == {1: True, 2: False, 3: True}
