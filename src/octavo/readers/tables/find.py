"""Where the tables of a page are: lattices, sets of level rules, aligned columns, and hints."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from octavo.media.page import Ruling, Word
from octavo.readers.tables import aligned, lattice
from octavo.readers.tables.judge import (
    CAPTION,
    is_tabular,
    lattice_is_table,
    looks_like_prose,
)
from octavo.readers.tables.leaders import without_leaders
from octavo.readers.tables.rulings import Level, Rule, levels_of, rules_of
from octavo.readers.tables.text import CHUNK_GAP, box_of, chunks_of, em_of, lines_of
from octavo.readers.tables.turned import View, turn_of
from octavo.readers.tables.unruled import candidates
from octavo.readers.tables.whole import holds, with_turned
from octavo.types import Box, Table

#: Level rules whose ends agree within this many ems belong to one table.
_SAME_ENDS = 1.5
#: Strokes at one height with a smaller gap, in ems, make one line from edge to edge.
_BROKEN_RULE = 2.0


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table on a page.

    Attributes:
        box: page units; around the words and rules of the table, captions and notes outside.
        confidence: 0 to 1, that this is a table and cut right.
        kind: ``ruled`` (a lattice), ``booktabs`` (level rules only) or ``unruled``.
    """

    box: Box
    table: Table
    confidence: float
    kind: str


def find_tables(
    words: Sequence[Word],
    rulings: Sequence[Ruling],
    *,
    page: Box,
    hints: Sequence[Box] = (),
    exclude: Sequence[Box] = (),
) -> list[FoundTable]:
    """Find the tables of a page and their cells, top to bottom.

    Args:
        words: of a text layer or an OCR engine, in any order.
        rulings: drawn, or found by ``rulings_from_pixels``.
        page: the upright page; rules outside are ignored.
        hints: boxes where a layout model sees tables. Imprecise: lines and words decide.
        exclude: boxes (pictures, running heads) whose words and lines are no table.

    Tables turned by a quarter are read along their own lines; their boxes lie on the page as
    it is. Every word whose centre lies in the box of a table is in one of the cells found, dot
    leaders left out.
    """
    words = [w for w in words if w.text.strip() and not _inside(w.box, exclude)]
    words, led = without_leaders(words)
    rulings = [r for r in rulings if not _inside(r.box, exclude) and page.contains_center(r.box)]
    found: list[FoundTable] = []
    for turn in (0, 90, 270):
        group = [w for w in words if turn_of(w.angle) == turn]
        if turn and len(group) < 8:
            continue
        view = View(page, turn)
        finder = _Finder(
            [view.word(w) for w in group],
            [view.ruling(r) for r in rulings],
            [view.box(h) for h in hints],
            others=[view.word(w) for w in words if turn_of(w.angle) != turn],
            led=[view.box(w.box) for w in led],
        )
        found += [
            replace(f, box=view.unbox(f.box), table=view.unturn(f.table)) if turn else f
            for f in finder.run()
        ]
    return sorted(found, key=lambda f: (f.box.top, f.box.left))


def _inside(box: Box, others: Sequence[Box]) -> bool:
    return any(other.contains_center(box) for other in others)


class _Finder:
    """One pass over the words of one writing direction; found tables take their words away."""

    def __init__(
        self,
        words: list[Word],
        rulings: Sequence[Ruling],
        hints: Sequence[Box],
        *,
        others: list[Word],
        led: list[Box],
    ) -> None:
        self.words = words
        #: Words of other writing directions, seen from this one.
        self.others = others
        #: Where dot leaders were.
        self.led = led
        self.hints = list(hints)
        self.em = em_of(words)
        self.level, self.upright = rules_of(rulings, words, self.em)
        self.found: list[FoundTable] = []

    def run(self) -> list[FoundTable]:
        if len(self.words) < 4:
            return []
        self._lattices()
        self._statements()
        self._rule_sets()
        for hint in self.hints:
            self._hinted(hint)
        for box in candidates(self.words, self.em):
            self._keep(self._aligned(box, (), hinted=False, kind="unruled"))
        return self.found

    def _keep(self, found: FoundTable | None) -> bool:
        if found is None:
            return False
        strays = [w for w in self.others if found.box.contains_center(w.box)]
        if strays:
            found = replace(found, table=with_turned(found.table, strays))
        if not holds(found.table, [*self._within(found.box), *strays]):
            return False
        self.found.append(found)
        self.others = [w for w in self.others if not found.box.contains_center(w.box)]
        self.words = [w for w in self.words if not found.box.contains_center(w.box)]
        return True

    def _within(self, box: Box) -> list[Word]:
        return [w for w in self.words if box.contains_center(w.box)]

    def _hint_share(self, box: Box) -> float:
        return max(
            (h.intersection(box) / max(min(h.area, box.area), 1e-6) for h in self.hints),
            default=0.0,
        )

    # -- lattices ---------------------------------------------------------------------------

    def _lattices(self) -> None:
        for found in lattice.lattices(self.level, self.upright, self.em):
            whole = lattice.with_loose_rules(found, self.level, self.em)
            box = whole.box
            if box.width < 3 * self.em or box.height < 1.5 * self.em:
                continue
            box = box.expand(0.1 * self.em)
            words = self._within(box)
            hinted = self._hint_share(box) > 0.5
            table = lattice.structure(whole, words, self.em) if words else None
            if table is not None and lattice_is_table(table, words, hinted=hinted):
                self._keep(FoundTable(box, table, 0.97 if hinted else 0.93, "ruled"))

    # -- rules over the numbers only --------------------------------------------------------

    def _statements(self) -> None:
        """Rows whose labels have no rule over them: sums ruled off in a financial statement."""
        for box in candidates(self.words, self.em):
            # A table whose first rule runs over its labels as well is a set of rules.
            upper = Box(box.left, box.top - 4 * self.em, box.right, box.bottom)
            levels = levels_of([r for r in self.level if _touches(upper, r, self.em)], self.em)
            if not levels or levels[0].rules[0].start < box.left + 3 * self.em:
                continue
            start = levels[0].rules[0].start
            lines = lines_of(self._within(box))
            labelled = sum(1 for line in lines if line.words[0].box.right < start + self.em)
            if labelled >= 0.6 * len(lines):
                self._keep(self._aligned(box, levels, hinted=False, kind="unruled"))

    # -- level rules only -------------------------------------------------------------------

    def _rule_sets(self) -> None:
        lines = [line for line in self._edge_to_edge() if line.length > 4 * self.em]
        used: set[int] = set()
        for at, first in enumerate(lines):
            if at in used:
                continue
            same = [
                other
                for other in range(at, len(lines))
                if other not in used
                and abs(lines[other].start - first.start) < _SAME_ENDS * self.em
                and abs(lines[other].end - first.end) < _SAME_ENDS * self.em
            ]
            used.update(same)
            for run in self._runs([lines[other] for other in same]):
                self._rule_set(run)
            used.update(
                other
                for other, line in enumerate(lines)
                if any(f.box.expand(0.5 * self.em).contains_center(_flat(line)) for f in self.found)
            )

    def _edge_to_edge(self) -> list[Rule]:
        """Level rules with the strokes of one height joined over the gaps between columns."""
        out: list[Rule] = []
        for level in levels_of(self.level, self.em):
            run = level.rules[0]
            for rule in level.rules[1:]:
                if rule.start - run.end > _BROKEN_RULE * self.em:
                    out.append(run)
                    run = rule
                else:
                    run = replace(run, end=max(run.end, rule.end))
            out.append(run)
        return out

    def _runs(self, lines: list[Rule]) -> list[list[Rule]]:
        """Runs of rules with table rows between them; prose and captions end a run."""
        runs: list[list[Rule]] = []
        run: list[Rule] = []
        for above, below in itertools.pairwise(lines):
            band = Box(
                max(above.start, below.start) - self.em,
                above.at,
                min(above.end, below.end) + self.em,
                below.at,
            )
            if self._is_rows(band):
                if len(run) > 2 and self._opens_header(above, below):
                    runs.append(run)
                    run = []
                run = run or [above]
                run.append(below)
            elif run:
                runs.append(run)
                run = []
        if run:
            runs.append(run)
        return runs

    def _opens_header(self, above: Rule, below: Rule) -> bool:
        """Partial rules between two whole ones: headings over columns of their own."""
        partial = [
            rule
            for rule in self.level
            if above.at + 0.5 * self.em < rule.at < below.at - 0.5 * self.em
            and rule.start > above.start + self.em
            and rule.end < above.end + self.em
            and rule.length > 2 * self.em
        ]
        return len(partial) >= 2

    def _is_rows(self, band: Box) -> bool:
        words = self._within(band)
        if not words:
            return band.height < 1.5 * self.em
        rows = [chunks_of(line.words, CHUNK_GAP * self.em) for line in lines_of(words)]
        if any(len(row) == 1 and CAPTION.match(row[0].text) for row in rows):
            return False
        several = sum(1 for row in rows if len(row) > 1)
        if several == 0:
            return len(rows) == 1 and band.height < 3 * self.em
        return not looks_like_prose(rows, band, self.em)

    def _rule_set(self, run: Sequence[Rule]) -> None:
        left, right = min(r.start for r in run), max(r.end for r in run)
        box = Box(left, run[0].at, right, run[-1].at)
        # Bands with one piece of text at either end are captions or notes between rules.
        while len(run) > 2 and self._single(Box(left, run[0].at, right, run[1].at)):
            run = run[1:]
            box = Box(left, run[0].at, right, run[-1].at)
        while len(run) > 2 and self._single(Box(left, run[-2].at, right, run[-1].at)):
            run = run[:-1]
            box = Box(left, run[0].at, right, run[-1].at)
        self._keep(
            self._aligned(
                box,
                levels_of(self.level, self.em),
                hinted=self._hint_share(box) > 0.3,
                kind="booktabs",
                rules=len(run),
            )
        )

    def _single(self, band: Box) -> bool:
        rows = [chunks_of(line.words, CHUNK_GAP * self.em) for line in lines_of(self._within(band))]
        return all(len(row) == 1 for row in rows)

    # -- words ------------------------------------------------------------------------------

    def _hinted(self, hint: Box) -> None:
        if any(f.box.intersection(hint) > 0.3 * min(f.box.area, hint.area) for f in self.found):
            return
        words = self._within(hint)
        if len(words) < 4:
            return
        lines = lines_of(words)
        rows = [chunks_of(line.words, CHUNK_GAP * self.em) for line in lines]
        # A hint may reach over the caption above or the note below.
        while (
            rows
            and len(rows[0]) == 1
            and (CAPTION.match(rows[0][0].text) or len(rows[0][0].words) > 8)
        ):
            rows.pop(0)
            lines.pop(0)
        while rows and len(rows[-1]) == 1 and len(rows[-1][0].words) > 8:
            rows.pop()
            lines.pop()
        if len(lines) < 2:
            return
        box = box_of([word for line in lines for word in line.words])
        inside = [r for r in self.level if box.expand(self.em).contains_center(_flat(r))]
        self._keep(self._aligned(box, levels_of(inside, self.em), hinted=True, kind="unruled"))

    def _aligned(
        self, box: Box, levels: Sequence[Level], *, hinted: bool, kind: str, rules: int = 0
    ) -> FoundTable | None:
        around = Box(box.left - self.em, box.top, box.right + self.em, box.bottom)
        words = self._within(around)
        if len(words) < 4:
            return None
        box = box.union(box_of(words))
        levels = [
            replace(
                level,
                rules=tuple(
                    r
                    for r in level.rules
                    if r.end > box.left - self.em and r.start < box.right + self.em
                ),
            )
            for level in levels
            if box.top - self.em < level.at < box.bottom + self.em
        ]
        made = aligned.structure(
            words, box, [lv for lv in levels if lv.rules], self.upright, self.em
        )
        led = sum(box.contains_center(other) for other in self.led)
        if made is None or not is_tabular(made, hinted=hinted, rules=rules, led=led):
            return None
        confidence = {"booktabs": 0.88, "unruled": 0.65}[kind] + (0.07 if hinted else 0.0)
        return FoundTable(box, made.table, confidence, kind)


def _touches(box: Box, rule: Rule, em: float) -> bool:
    """A level rule over or between the lines of a box, or just below them."""
    return (
        box.top - 0.5 * em < rule.at < box.bottom + 0.5 * em
        and rule.end > box.left
        and rule.start < box.right
    )


def _flat(rule: Rule) -> Box:
    return Box(rule.start, rule.at, rule.end, rule.at)
