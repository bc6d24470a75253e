import json
import math
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.document import Citation, Report, ReportHeader, ReportStatus, write_report_json
from octavo.errors import (
    BrokenFile,
    InputError,
    OctavoError,
    OutputError,
    SourceNotFound,
    UnsupportedFormat,
)
from octavo.schema import page_from_dict, page_to_dict
from octavo.types import (
    Attempt,
    Box,
    Category,
    Element,
    Failure,
    PageResult,
    Summary,
    SummarySentence,
    Table,
    TableCell,
    TextSource,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=20)
boxes = st.builds(Box, numbers, numbers, numbers, numbers)
cells = st.builds(
    TableCell,
    row=st.integers(0, 9),
    col=st.integers(0, 9),
    text=texts,
    row_span=st.integers(1, 3),
    col_span=st.integers(1, 3),
    header=st.booleans(),
    box=st.none() | boxes,
)
tables = st.builds(
    Table, st.integers(0, 9), st.integers(0, 9), st.lists(cells, max_size=3).map(tuple)
)


def elements(children: st.SearchStrategy[tuple[Element, ...]]) -> st.SearchStrategy[Element]:
    return st.builds(
        Element,
        id=texts,
        category=st.sampled_from(Category),
        box=boxes,
        text=texts,
        confidence=numbers,
        level=st.none() | st.integers(0, 9),
        marker=st.none() | texts,
        table=st.none() | tables,
        caption_of=st.none() | texts,
        children=children,
        font_size=st.none() | numbers,
        bold=st.booleans(),
        continues=st.booleans(),
        rtl=st.booleans(),
    )


leaves = elements(st.just(()))
trees = elements(st.lists(leaves, max_size=2).map(tuple))
failures = st.builds(Failure, texts, texts, st.none() | texts)
summaries = st.builds(
    Summary, texts, st.lists(st.builds(SummarySentence, texts, texts), max_size=2).map(tuple)
)
pages = st.builds(
    PageResult,
    number=st.integers(1, 10_000),
    width=numbers,
    height=numbers,
    elements=st.lists(trees, max_size=2).map(tuple),
    source=st.sampled_from(TextSource),
    reason=texts,
    rotation=st.sampled_from([0, 90, 180, 270]),
    skew=numbers,
    attempts=st.lists(st.builds(Attempt, texts, st.booleans(), texts), max_size=2).map(tuple),
    failure=st.none() | failures,
    summary=st.none() | summaries,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)
reports = st.builds(
    Report,
    source=texts,
    sha256=texts,
    settings=st.dictionaries(texts, values, max_size=3),
    page_count=st.integers(0, 10_000),
    summary=st.none() | summaries,
    failures=st.lists(failures, max_size=1).map(tuple),
    pages=st.lists(pages, max_size=3, unique_by=lambda page: page.number).map(tuple),
)


def text(number: int, words: str, page: int = 1) -> Element:
    return Element(f"p{page}-{number}", Category.TEXT, Box(1, 2, 3, 4), words)


def sample() -> Report:
    table = Table(1, 2, (TableCell(0, 0, "left"), TableCell(0, 1, "right", box=Box(0, 0, 1, 1))))
    child = Element("p1-2.1", Category.TEXT, Box(0, 0, 1, 1), "within")
    first = PageResult(
        1,
        100,
        200,
        (
            text(1, "An octavo is a sheet folded thrice."),
            Element("p1-2", Category.PICTURE, Box(0, 0, 9, 9), children=(child,)),
            Element("p1-3", Category.TABLE, Box(5, 5, 9, 9), table=table),
        ),
    )
    return Report(source="a.pdf", sha256="ab", page_count=2, pages=(first,), settings={"dpi": 200})


@settings(max_examples=80, deadline=None)
@given(reports)
def test_loading_what_was_saved_gives_the_same_report(
    tmp_path_factory: pytest.TempPathFactory, report: Report
) -> None:
    path = tmp_path_factory.mktemp("saved") / "report.json"
    report.save(path)
    loaded = Report.load(path)
    assert loaded == report
    before = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == before


@settings(max_examples=60, deadline=None)
@given(pages)
def test_a_page_survives_the_journal(page: PageResult) -> None:
    assert page_from_dict(json.loads(json.dumps(page_to_dict(page)))) == page


def test_a_lone_surrogate_survives(tmp_path: Path) -> None:
    page = PageResult(1, 1, 1, (text(1, "broken \ud800 font"),))
    report = Report(source="a.pdf", page_count=1, pages=(page,))
    report.save(tmp_path / "r.json")
    assert Report.load(tmp_path / "r.json") == report


def test_timings_change_neither_equality_nor_bytes(tmp_path: Path) -> None:
    report = sample()
    slow = replace(report, pages=(replace(report.pages[0], timings={"ocr": 1.5}),))
    assert slow == report
    report.save(tmp_path / "a.json")
    slow.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_order_of_settings_does_not_change_the_bytes(tmp_path: Path) -> None:
    for name, chosen in (("a", {"x": 1, "y": [2]}), ("b", {"y": (2,), "x": 1})):
        Report(source="a", page_count=0, settings=chosen).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


GOOD = PageResult(1, 1, 1)
BAD = PageResult(2, 1, 1, failure=Failure("PageTimeout", "took too long"))
LOST = Failure("BrokenFile", "the end is missing")


@pytest.mark.parametrize(
    ("of_pages", "of_file", "status"),
    [
        ((GOOD,), (), ReportStatus.OK),
        ((GOOD, BAD), (), ReportStatus.PARTIAL),
        ((GOOD,), (LOST,), ReportStatus.PARTIAL),
        ((BAD,), (), ReportStatus.FAILED),
        ((), (), ReportStatus.FAILED),
    ],
)
def test_status_follows_from_pages_and_failures(
    tmp_path: Path,
    of_pages: tuple[PageResult, ...],
    of_file: tuple[Failure, ...],
    status: ReportStatus,
) -> None:
    report = Report(source="a", page_count=2, pages=of_pages, failures=of_file)
    assert report.status is status
    assert write_report_json(tmp_path / "r.json", report.header, iter(of_pages)) is status
    assert Report.load(tmp_path / "r.json").status is status


def test_two_pages_of_one_number_are_refused() -> None:
    with pytest.raises(InputError, match="page 1 is there twice"):
        Report(source="a", page_count=2, pages=(GOOD, GOOD))


def test_elements_are_walked_with_their_children() -> None:
    assert [e.id for e in sample().elements()] == ["p1-1", "p1-2", "p1-2.1", "p1-3"]
    assert sample().element("p1-2.1").text == "within"
    with pytest.raises(InputError, match="no element 'p9-9'"):
        sample().element("p9-9")


def test_a_citation_is_a_span_of_the_text() -> None:
    report = sample()
    citation = report.cite("p1-1", "a sheet folded")
    assert citation == Citation("p1-1", 1, Box(1, 2, 3, 4), "a sheet folded")
    report.check(citation)
    assert report.cite("p1-3", "right").quote == "right"
    assert report.cite("p1-2.1", "within").page == 1


@pytest.mark.parametrize("quote", ["A sheet folded", "a sheet  folded", "a leaf folded", "", " "])
def test_other_words_are_no_citation(quote: str) -> None:
    with pytest.raises(InputError, match="no span"):
        sample().cite("p1-1", quote)


def test_a_citation_that_points_elsewhere_is_refused() -> None:
    good = sample().cite("p1-1", "octavo")
    for wrong in (replace(good, page=2), replace(good, box=Box(0, 0, 1, 1))):
        with pytest.raises(InputError, match="elsewhere"):
            sample().check(wrong)
    with pytest.raises(InputError, match="no span"):
        # Words of two cells stand nowhere together.
        sample().cite("p1-3", "left right")


def saved(tmp_path: Path) -> tuple[Path, dict[str, object]]:
    path = tmp_path / "report.json"
    sample().save(path)
    return path, json.loads(path.read_bytes())


def test_another_version_is_named(tmp_path: Path) -> None:
    path, data = saved(tmp_path)
    path.write_text(json.dumps(data | {"schema": "octavo.report/2"}))
    with pytest.raises(UnsupportedFormat, match=r"octavo\.report/2") as caught:
        Report.load(path)
    assert caught.value.next_step


BREAKS: list[tuple[str, str]] = [
    ("data['more'] = 1", "$: unknown key 'more'"),
    ("del data['sha256']", "$: the key 'sha256' is missing"),
    ("data['status'] = 'partial'", "$.status: says 'partial'"),
    ("data['settings']['dpi'] = {}", "$.settings.dpi: "),
    ("page['colour'] = 'red'", "$.pages[0]: unknown key 'colour'"),
    ("page['number'] = 1.5", "$.pages[0].number: expected a whole number"),
    ("page['number'] = True", "$.pages[0].number: expected a whole number"),
    ("page['elements'] = {}", "$.pages[0].elements: expected a list"),
    ("page['elements'][1]['category'] = 'Chart'", "elements[1].category: 'Chart' is none of"),
    ("page['elements'][0]['box'] = [1, 2, 3]", "elements[0].box: expected a box"),
    ("page['elements'][0]['text'] = None", "elements[0].text: expected text, found null"),
    ("page['elements'][2]['table']['cells'][1]['box'] = 'x'", "table.cells[1].box"),
    ("page['elements'][1]['children'][0]['bold'] = 1", "children[0].bold: expected true or"),
    ("data['pages'].append(page)", "page 1 is there twice"),
]


@pytest.mark.parametrize(("change", "message"), BREAKS)
def test_a_changed_report_is_refused_with_its_place(
    tmp_path: Path, change: str, message: str
) -> None:
    path, data = saved(tmp_path)
    pages = data["pages"]
    assert isinstance(pages, list)
    exec(change, {"data": data, "page": pages[0]})
    path.write_text(json.dumps(data))
    with pytest.raises(OctavoError) as caught:
        Report.load(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff", b"null", b'{"schema": 1}', b"[" * 100_000]
)
def test_what_is_no_report_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(data)
    with pytest.raises(BrokenFile):
        Report.load(path)


def test_a_cut_report_is_refused(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    whole = path.read_bytes()
    for end in range(len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(BrokenFile):
            Report.load(path)


def test_a_missing_report_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="none"):
        Report.load(tmp_path / "none.json")


def test_a_failed_write_leaves_the_old_report(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    before = path.read_bytes()
    nan = PageResult(
        2, 1, 1, (text(1, "x", 2), Element("p2-2", Category.TEXT, Box(0, 0, 1, math.nan)))
    )
    with pytest.raises(OutputError, match="page 2"):
        write_report_json(path, sample().header, [GOOD, nan])
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["report.json"]


def test_a_report_cannot_be_saved_into_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        sample().save(tmp_path / "none" / "report.json")


def test_pages_are_written_as_they_come(tmp_path: Path) -> None:
    """Each page is dropped before the next but one is made."""
    alive: list[weakref.ref[Element]] = []

    class Watched(Element):
        __slots__ = ("__weakref__",)

    def make() -> Iterator[PageResult]:
        for number in range(1, 50):
            element = Watched(f"p{number}-1", Category.TEXT, Box(0, 0, 1, 1), "words")
            alive.append(weakref.ref(element))
            yield PageResult(number, 1, 1, (element,))
            del element
            assert sum(ref() is not None for ref in alive) <= 2

    header = ReportHeader(source="a", page_count=49)
    write_report_json(tmp_path / "r.json", header, make())
    assert len(Report.load(tmp_path / "r.json").pages) == 49


def test_markdown_of_a_page_that_is_not_there() -> None:
    assert "folded thrice" in sample().markdown(page=1)
    with pytest.raises(InputError, match="no page 2"):
        sample().markdown(page=2)


def test_importing_the_report_loads_no_docling() -> None:
    code = "import sys, octavo.document; print([m for m in sys.modules if 'docling_core' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
