"""How much memory does a long document take, and does it grow with the pages?

The tool runs in a process of its own; the resident memory of it and of all its children is read
from /proc every 50 ms. The slope is that of a straight line through the samples after the first
fifth of the run, over the pages that had been done by then, taken as even in time. The text of
the first, middle and last page must be in the answer: memory is easily saved by stopping early.
"""

from __future__ import annotations

import argparse
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pypdfium2 as pdfium
from rapidfuzz import fuzz

from benchmarks.documents import rivals
from benchmarks.documents.drawn import book
from benchmarks.documents.normalise import plain
from benchmarks.documents.pages import WORK, Missing, Pages, corpus_folder

LONG = "corpus/pdf/DA-619p.pdf"
PERIOD_S = 0.05
TOOLS = ("octavo-fast", "markitdown", "kreuzberg")
_SETTLED = 0.2
_FAST_PAGES = 40
#: A page counts as there when this much of a passage of it is found, of 100.
_FOUND = 90.0
_PROSE = re.compile(r"(?:[A-Za-z]+,? ){7,}[A-Za-z]+[,.]?")


@dataclass(slots=True)
class Trace:
    """Seconds since the start and bytes resident, parent and children together."""

    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)

    @property
    def peak_mb(self) -> float:
        return max(self.bytes, default=0) / 1e6

    def slope_mb_per_page(self, pages: int) -> float:
        """Least squares over the samples after the start has settled."""
        whole = self.seconds[-1] if self.seconds else 0.0
        kept = [
            (second / whole * pages, size / 1e6)
            for second, size in zip(self.seconds, self.bytes, strict=True)
            if whole and second > _SETTLED * whole
        ]
        if len(kept) < 2:
            return 0.0
        done, size = np.asarray(kept).T
        return float(np.polyfit(done, size, 1)[0])


class Sampler(threading.Thread):
    """Watches a process and its children until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.trace = Trace()
        self._process = psutil.Process(pid)
        self._done = threading.Event()

    def run(self) -> None:
        start = time.perf_counter()
        over = False
        while not over:  # one sample at the end as well, for runs shorter than a period
            over = self._done.wait(PERIOD_S)
            size = resident(self._process)
            if size:
                self.trace.seconds.append(time.perf_counter() - start)
                self.trace.bytes.append(size)

    def stop(self) -> Trace:
        self._done.set()
        self.join()
        return self.trace


def resident(process: psutil.Process) -> int:
    """Bytes resident in a process and all below it; 0 once it has gone."""
    size = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            size += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("memory")
    group.add_argument("--memory-tools", default=",".join(TOOLS), help="comma separated")
    for name, words in (
        ("--corpus", "folder of the corpus; else BENCH_CORPUS, else a drawn book"),
        ("--rivals-python", "interpreter that has the rivals"),
    ):
        if name not in parser._option_string_actions:
            group.add_argument(name, help=words)


def run(options: argparse.Namespace) -> Mapping[str, object]:
    path = _long_document(options)
    marks = passages(path)
    document = pdfium.PdfDocument(path)
    pages = len(document)
    document.close()
    print(f"\n{path.name}: {pages} pages")
    tools: dict[str, object] = {}
    for name in options.memory_tools.split(","):
        try:
            tools[name] = _measure(name, path, pages, marks, options.rivals_python)
        except rivals.ToolUnavailable as error:
            print(f"left out: {error}")
    return {"document": path.name, "pages": pages, "tools": tools}


def _long_document(options: argparse.Namespace) -> Path:
    if options.fast:
        return book.draw_book(WORK / "drawn", _FAST_PAGES)
    try:
        return Pages(corpus_folder(options.corpus)).source(LONG)
    except Missing as error:
        print(f"{error}; a drawn book stands in")
        return book.draw_book(WORK / "drawn", 600)


def passages(path: Path) -> dict[int, str]:
    """A line of prose of the first page that has one, of the middle and of the last."""
    document = pdfium.PdfDocument(path)
    try:
        count = len(document)
        marks: dict[int, str] = {}
        for wanted in (range(count), range(count // 2, count), reversed(range(count))):
            for number in wanted:
                line = _prose(document[number].get_textpage().get_text_range())
                if line:
                    marks[number + 1] = line
                    break
        return marks
    finally:
        document.close()


def _prose(text: str) -> str:
    """The first line of words only: leaders and numbers may rightly be set in another way."""
    lines = (plain(line) for line in text.splitlines())
    return next((line for line in lines if _PROSE.fullmatch(line)), "")


def _measure(
    name: str, path: Path, pages: int, marks: Mapping[int, str], python: str | None
) -> dict[str, object]:
    with rivals.Tool(name, python) as tool:
        sampler = Sampler(tool.pid)
        sampler.start()
        start = time.perf_counter()
        answer = tool.convert(path)
        seconds = time.perf_counter() - start
        trace = sampler.stop()
        version = tool.version
    text = plain(answer.markdown)
    missing = [page for page, words in marks.items() if fuzz.partial_ratio(words, text) < _FOUND]
    complete = not missing and not answer.error
    slope = trace.slope_mb_per_page(pages)
    print(
        f"  {name:<14} peak {trace.peak_mb:7.0f} MB   slope {slope:+.3f} MB/page   "
        f"{pages / seconds:6.2f} pages/s   {'complete' if complete else 'NOT COMPLETE'}"
        + (f" ({answer.error})" if answer.error else "")
    )
    return {
        "version": version,
        "peak_mb": round(trace.peak_mb, 1),
        "slope_mb_per_page": round(slope, 4),
        "seconds": round(seconds, 1),
        "samples": len(trace.bytes),
        "complete": complete,
        "missing_pages": missing,
        "error": answer.error,
    }
