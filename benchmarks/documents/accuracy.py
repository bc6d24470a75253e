"""How many facts of hard pages does a tool's Markdown get right?

The rules in ``rules/*.json`` were written by looking at the pages, never from a tool's output.
Each tool sees one page at a time, as a single-page PDF or a picture, and is scored on the
Markdown that it returns.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.documents import rivals
from benchmarks.documents.pages import WORK, Missing, Pages, corpus_folder
from benchmarks.documents.rules import CLASSES, PageText, Rule, Verdict, check, load_rules

RULES = Path(__file__).resolve().parent / "rules"
DEFAULT_TOOLS = ("octavo", "kreuzberg", "markitdown", "rapidocr", "text-layer")
#: ``--fast`` takes the first pages only.
_FAST_PAGES = 3

PageKey = tuple[str, int]


@dataclass(slots=True)
class Score:
    """One tool's verdicts and time."""

    tool: str
    version: str = ""
    verdicts: list[Verdict] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def passed(self, group: str | None = None) -> tuple[int, int]:
        """Rules that held, of how many; of one class or of all."""
        of = [v.passed for v in self.verdicts if group in (None, v.rule.group)]
        return sum(of), len(of)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("accuracy")
    group.add_argument("--corpus", help="folder of the corpus; else BENCH_CORPUS, else skipped")
    group.add_argument("--tools", help=f"comma separated, of {', '.join(rivals.TOOLS)}")
    group.add_argument("--rivals-python", help="interpreter that has the rivals")
    group.add_argument("--doc", help="only documents whose name contains this")
    group.add_argument("--class", dest="group", choices=CLASSES, help="only rules of this class")
    group.add_argument("--failures", action="store_true", help="print each rule that failed")
    group.add_argument("--no-cache", action="store_true", help="ask the rivals again")
    group.add_argument("--save", type=Path, help="folder for each tool's Markdown")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    by_page = _pages(options)
    pages = Pages(corpus_folder(options.corpus))
    files, skipped = _locate(by_page, pages)
    for message in skipped:
        print(f"skipped: {message}")
    cache = rivals.Cache(None if options.no_cache else WORK / "answers")
    scores = []
    for name in (options.tools or ",".join(DEFAULT_TOOLS)).split(","):
        try:
            with rivals.Tool(name, options.rivals_python) as tool:
                scores.append(_score(tool, cache, by_page, files, options.save))
        except rivals.ToolUnavailable as error:
            print(f"left out: {error}")
    _print(scores, options.failures)
    return {
        "rules": sum(len(by_page[key]) for key in files),
        "pages": len(files),
        "skipped": skipped,
        "tools": {score.tool: _as_json(score) for score in scores},
    }


def _pages(options: argparse.Namespace) -> dict[PageKey, list[Rule]]:
    by_page: dict[PageKey, list[Rule]] = defaultdict(list)
    for rule in load_rules(RULES):
        if options.doc and options.doc not in rule.doc:
            continue
        if options.group and rule.group != options.group:
            continue
        by_page[rule.doc, rule.page].append(rule)
    if options.fast:
        return dict(list(by_page.items())[:_FAST_PAGES])
    return by_page


def _locate(
    by_page: Mapping[PageKey, list[Rule]], pages: Pages
) -> tuple[dict[PageKey, Path], list[str]]:
    files: dict[PageKey, Path] = {}
    skipped: list[str] = []
    for (doc, page), rules in by_page.items():
        try:
            files[doc, page] = pages.path(doc, page, rules[0].password)
        except Missing as error:
            skipped.append(str(error))
    return files, skipped


def _score(
    tool: rivals.Tool,
    cache: rivals.Cache,
    by_page: Mapping[PageKey, list[Rule]],
    files: Mapping[PageKey, Path],
    save: Path | None,
) -> Score:
    score = Score(tool.name, tool.version)
    for (doc, page), path in files.items():
        answer = cache.convert(tool, path)
        score.seconds += answer.seconds
        if answer.error:
            score.errors[f"{doc} p{page}"] = answer.error
        if save:
            save.mkdir(parents=True, exist_ok=True)
            (save / f"{path.stem}.{tool.name}.md").write_text(answer.markdown, encoding="utf-8")
        text = PageText(answer.markdown)
        score.verdicts.extend(check(rule, text) for rule in by_page[doc, page])
    return score


def _print(scores: Iterable[Score], failures: bool) -> None:
    scores = list(scores)
    if not scores:
        return
    if failures:
        for score in scores:
            _print_failures(score)
    names = [score.tool for score in scores]
    docs = sorted({(v.rule.doc, v.rule.page) for v in scores[0].verdicts})
    print("\n" + _row("document", names))
    for doc, page in docs:
        cells = []
        for score in scores:
            of = [v.passed for v in score.verdicts if (v.rule.doc, v.rule.page) == (doc, page)]
            cells.append(f"{sum(of)}/{len(of)}")
        print(_row(f"{doc.removeprefix('corpus/')} p{page}", cells))
    print("\n" + _row("class", names))
    for group in CLASSES:
        if scores[0].passed(group)[1]:
            print(_row(group, ["{}/{}".format(*score.passed(group)) for score in scores]))
    print(_row("all", ["{}/{}".format(*score.passed()) for score in scores]))
    print(_row("percent", [f"{_percent(score):.1f}" for score in scores]))


def _row(head: str, cells: Iterable[str]) -> str:
    return f"{head[:44]:<45}" + "".join(f"{cell:>12}" for cell in cells)


def _print_failures(score: Score) -> None:
    print(f"\n== {score.tool} {score.version}")
    for where, error in score.errors.items():
        print(f"{where}: {error}")
    last = None
    for verdict in score.verdicts:
        if verdict.passed:
            continue
        rule = verdict.rule
        if (rule.doc, rule.page) != last:
            last = (rule.doc, rule.page)
            print(f"\n{rule.doc} p{rule.page}")
        print(f"  [{rule.group}] {rule}\n      nearest: {verdict.nearest[:300]}")


def _percent(score: Score) -> float:
    held, of = score.passed()
    return 100 * held / max(of, 1)


def _as_json(score: Score) -> dict[str, object]:
    held, of = score.passed()
    return {
        "version": score.version,
        "passed": held,
        "of": of,
        "percent": round(_percent(score), 1),
        "classes": {
            group: dict(zip(("passed", "of"), score.passed(group), strict=True))
            for group in CLASSES
        },
        "seconds": round(score.seconds, 1),
        "errors": score.errors,
        "failed": [
            f"{v.rule.doc} p{v.rule.page}: {v.rule}" for v in score.verdicts if not v.passed
        ],
    }
