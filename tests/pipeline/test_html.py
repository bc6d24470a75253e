import base64
import hashlib
import re
import weakref
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from octavo.document import ReportHeader
from octavo.errors import OutputError
from octavo.pipeline.html import write_html
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

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "--><svg onload=alert(1)>",
    "\u2028alert(1)\u2029",
    "&lt;b&gt;",
    "</style><script>alert(1)</script>",
    "lone \ud800 surrogate",
]


class Tree(HTMLParser):
    """What a browser would make of the file: tags with attributes, and text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def by(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def of_class(self, name: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.tags if name in attrs.get("class", "").split()]


def written(tmp_path: Path, header: ReportHeader, *pages: PageResult) -> str:
    path = tmp_path / "report.html"
    write_html(path, header, pages, {})
    return path.read_text("utf-8")


def everywhere(text: str) -> tuple[ReportHeader, PageResult]:
    """A report with ``text`` in every place that a document or its name reaches."""
    box = Box(1, 2, 50, 60)
    summary = Summary(text, (SummarySentence(text, text),))
    failure = Failure(text, text, text)
    table = Table(1, 1, (TableCell(0, 0, text),))
    elements = tuple(
        Element(f"{text}{n}", category, box, text, marker=text, caption_of=text)
        for n, category in enumerate(Category)
    )
    child = Element(text, Category.TEXT, box, text)
    elements += (Element("t", Category.TABLE, box, text, table=table, children=(child,)),)
    page = PageResult(
        1,
        100,
        100,
        elements,
        TextSource.OCR,
        text,
        0,
        0,
        (Attempt(text, True, text),),
        failure,
        summary,
    )
    header = ReportHeader(
        source=text,
        sha256=text,
        settings={text: text},
        page_count=1,
        summary=summary,
        failures=(failure,),
    )
    return header, page


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_from_the_document_becomes_markup(tmp_path: Path, text: str) -> None:
    plain = Tree(written(tmp_path, *everywhere("plain")))
    hostile = Tree(written(tmp_path, *everywhere(text)))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    for (_, found), (_, wanted) in zip(hostile.tags, plain.tags, strict=True):
        assert found.keys() == wanted.keys()
        assert not any(key.startswith("on") for key in found)
        assert not found.get("href", "#").lower().startswith("javascript:")
    shown = text.encode(errors="replace").decode()
    assert shown in "".join(hostile.words)


def test_the_policy_allows_the_one_script_and_no_network(tmp_path: Path) -> None:
    source = written(tmp_path, *everywhere("plain"))
    tree = Tree(source)
    (policy,) = [m["content"] for m in tree.by("meta") if "http-equiv" in m]
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "http:" not in source
    assert "https:" not in source


def test_boxes_and_texts_find_each_other(tmp_path: Path) -> None:
    child = Element("p1-1.1", Category.TEXT, Box(20, 20, 30, 30), "within")
    picture = Element("p1-1", Category.PICTURE, Box(10, 20, 60, 70), children=(child,))
    page = PageResult(1, 100, 200, (picture,), TextSource.TEXT_LAYER, "the layer is sound")
    tree = Tree(written(tmp_path, ReportHeader(source="a.pdf", page_count=1), page))
    boxes, texts = tree.of_class("box"), tree.of_class("el")
    assert [box["href"] for box in boxes] == [f"#{text['id']}" for text in texts]
    assert [box["id"] for box in boxes] == ["b-p1-1", "b-p1-1.1"]
    assert boxes[0]["style"] == "left:10.00%;top:10.00%;width:50.00%;height:25.00%"
    assert all(text["tabindex"] == "0" for text in texts)
    assert "the layer is sound" in tree.words


def test_the_bar_has_every_page_with_its_status(tmp_path: Path) -> None:
    pages = [PageResult(1, 1, 1), PageResult(7, 0, 0, failure=Failure("PageTimeout", "too long"))]
    tree = Tree(written(tmp_path, ReportHeader(source="a.pdf", page_count=9), *pages))
    links = [(a["href"], a["class"]) for a in tree.by("a") if a["href"].startswith("#page-")]
    assert links == [("#page-1", "ok"), ("#page-7", "failed")]
    assert {"partial", "2 of 9 pages", "PageTimeout", ": too long"} <= set(tree.words)
    assert len([i for i in tree.by("input") if i["type"] == "checkbox"]) == len(Category)


def test_pictures_are_within_the_file(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    Image.new("RGB", (3, 2), "red").save(picture)
    path = tmp_path / "report.html"
    pages = [PageResult(1, 3, 2), PageResult(2, 3, 2)]
    write_html(path, ReportHeader(source="a", page_count=2), pages, {1: picture})
    (image,) = Tree(path.read_text()).by("img")
    assert image["src"].partition(",")[0] == "data:image/png;base64"
    assert base64.b64decode(image["src"].partition(",")[2]) == picture.read_bytes()
    assert image["loading"] == "lazy"


def test_a_picture_that_is_gone_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    gone = {1: tmp_path / "gone.jpg"}
    with pytest.raises(OutputError):
        write_html(path, ReportHeader(source="a", page_count=1), [PageResult(1, 1, 1)], gone)
    assert list(tmp_path.iterdir()) == []


def test_pages_are_written_as_they_come(tmp_path: Path) -> None:
    alive: list[weakref.ref[Element]] = []

    class Watched(Element):
        __slots__ = ("__weakref__",)

    def make() -> Iterator[PageResult]:
        for number in range(1, 20):
            element = Watched(f"p{number}-1", Category.TEXT, Box(0, 0, 1, 1), "words")
            alive.append(weakref.ref(element))
            yield PageResult(number, 1, 1, (element,))
            del element
            assert sum(ref() is not None for ref in alive) <= 2

    write_html(tmp_path / "r.html", ReportHeader(source="a", page_count=19), make(), {})
    assert (tmp_path / "r.html").read_text().count('class="page"') == 19
