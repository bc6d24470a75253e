"""Pages a second, beside the rivals, on born-digital pages and on scans.

Every tool runs in a process of its own with its engines loaded and warmed by one page that is not
counted. Rounds are interleaved: each tool does the whole set once, then all again, so that a busy
machine is busy for everyone. The figure of a tool is that of its median round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.documents import rivals
from benchmarks.documents.pages import Missing, Pages, corpus_folder

ROUNDS = 3

#: Documents by kind; the corpus ones are skipped where it is absent.
BORN_DIGITAL: tuple[tuple[str, int], ...] = (
    ("corpus/pdf/multi-column-2p.pdf", 1),
    ("corpus/pdf/multi-column-2p.pdf", 2),
    ("corpus/pdf/layout-parser-paper-with-table.pdf", 1),
    ("corpus/pdf/embedded-images-tables.pdf", 1),
    ("corpus/pdf/mineru_demo1.pdf", 2),
    ("corpus/pdf/mineru_demo1.pdf", 7),
    ("corpus/pdf/reliance.pdf", 3),
    ("corpus/pdf/DA-1p.pdf", 1),
    ("drawn/newspaper_three.pdf", 1),
    ("drawn/financial.pdf", 1),
    ("drawn/sidebar.pdf", 1),
)
SCANNED: tuple[tuple[str, int], ...] = (
    ("corpus/images/double-column-A.jpg", 1),
    ("corpus/images/table_1.jpg", 1),
    ("corpus/pdf/loremipsum-flat.pdf", 1),
    ("drawn/booktabs_scan.pdf", 1),
    ("drawn/newspaper_scan.pdf", 1),
    ("drawn/typed_letter.pdf", 1),
    ("drawn/turned_scan.pdf", 1),
)
SETS: dict[str, tuple[tuple[tuple[str, int], ...], tuple[str, ...]]] = {
    "born-digital": (
        BORN_DIGITAL,
        ("octavo", "octavo-fast", "kreuzberg", "markitdown", "text-layer"),
    ),
    "scanned": (SCANNED, ("octavo", "octavo-fast", "rapidocr", "kreuzberg")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("speed")
    group.add_argument("--rounds", type=int, default=ROUNDS)
    group.add_argument("--set", dest="sets", action="append", choices=sorted(SETS))
    for name, words in (
        ("--corpus", "folder of the corpus; else BENCH_CORPUS, else skipped"),
        ("--tools", "comma separated; those that do not belong to a set are left out of it"),
        ("--rivals-python", "interpreter that has the rivals"),
    ):
        if name not in parser._option_string_actions:
            group.add_argument(name, help=words)


def run(options: argparse.Namespace) -> Mapping[str, object]:
    pages = Pages(corpus_folder(options.corpus))
    rounds = 1 if options.fast else options.rounds
    measured: dict[str, object] = {"rounds": rounds}
    for name, (documents, tools) in SETS.items():
        if options.sets and name not in options.sets:
            continue
        chosen = [tool for tool in tools if not options.tools or tool in options.tools.split(",")]
        files = _files(documents[:3] if options.fast else documents, pages)
        measured[name] = _measure(name, files, chosen, rounds, options.rivals_python)
    return measured


def _files(documents: Sequence[tuple[str, int]], pages: Pages) -> list[Path]:
    files = []
    for doc, page in documents:
        try:
            files.append(pages.path(doc, page))
        except Missing as error:
            print(f"skipped: {error}")
    return files


def _measure(
    kind: str, files: Sequence[Path], tools: Sequence[str], rounds: int, python: str | None
) -> dict[str, object]:
    seconds: dict[str, list[float]] = {}
    errors: dict[str, list[str]] = {}
    with ExitStack() as stack:
        running: list[rivals.Tool] = []
        for name in tools:
            try:
                running.append(stack.enter_context(rivals.Tool(name, python)))
            except rivals.ToolUnavailable as error:
                print(f"left out: {error}")
        for tool in running:
            tool.convert(files[0])
        for _ in range(rounds):
            for tool in running:
                start = time.perf_counter()
                answers = [tool.convert(path) for path in files]
                seconds.setdefault(tool.name, []).append(time.perf_counter() - start)
                errors[tool.name] = [answer.error for answer in answers if answer.error]
        versions = {tool.name: tool.version for tool in running}
    return _report(kind, len(files), seconds, errors, versions)


def _report(
    name: str,
    count: int,
    seconds: Mapping[str, list[float]],
    errors: Mapping[str, list[str]],
    versions: Mapping[str, str],
) -> dict[str, object]:
    rate = {tool: count / statistics.median(times) for tool, times in seconds.items()}
    print(f"\n{name}: {count} pages, median of {len(next(iter(seconds.values()), []))} rounds")
    base = rate.get("octavo")
    for tool, value in rate.items():
        beside = f"{base / value:>8.2f}x" if base else ""
        print(f"  {tool:<14}{value:>8.2f} pages/s   octavo is {beside} of it")
    return {
        "pages": count,
        "tools": {
            tool: {
                "version": versions[tool],
                "pages_per_second": round(rate[tool], 3),
                "rounds_seconds": [round(value, 2) for value in times],
                "octavo_over_this": round(base / rate[tool], 2) if base else None,
                "errors": errors[tool],
            }
            for tool, times in seconds.items()
        },
    }
