"""``report.html``: one file that opens offline, page pictures with boxes beside their text.

Everything that comes from the document is escaped, and the file's own policy allows only the
one script that is written here, by its hash. Pages are written as they come; none is kept.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from pathlib import Path

from octavo.document import ReportHeader, ReportStatus
from octavo.files import atomic_write
from octavo.pipeline.page_pictures import PagePictures
from octavo.tables import to_html
from octavo.types import Box, Category, Element, Failure, PageResult, PageStatus, Summary


def write_html(
    path: str | os.PathLike[str],
    header: ReportHeader,
    pages: Iterable[PageResult],
    pictures: Mapping[int, Path],
) -> None:
    """Writes the report as one page of HTML, in one step, holding one page at a time.

    Args:
        pictures: files of page pictures (JPEG, PNG or WebP) by page number, of any size; many
            of them are carried smaller, see ``PagePictures``. The boxes of a page without one
            lie on a blank page.

    Raises:
        OutputError: the file cannot be written, or a picture cannot be read.
    """
    with atomic_write(path) as file:
        for part in render_html(header, pages, pictures):
            file.write(part.encode("utf-8", errors="replace"))


def render_html(
    header: ReportHeader, pages: Iterable[PageResult], pictures: Mapping[int, Path]
) -> Iterator[str]:
    """The pieces of the file, in order."""
    script = _asset("report.js")
    yield _head(header, script)
    yield _document_note(header)
    marks: list[tuple[int, PageStatus]] = []
    with PagePictures(pictures) as carried:
        for page in pages:
            marks.append((page.number, page.status))
            yield _page(page, carried.take(page.number))
    yield f"</main>\n{_bar(header, marks)}\n<script>{script}</script>\n</body>\n</html>\n"


def _head(header: ReportHeader, script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="Octavo">
<title>{escape(header.source)} · Octavo</title>
<style>{_asset("report.css")}</style>
<style id="hidden"></style>
</head>
<body>
<main>
"""


def _document_note(header: ReportHeader) -> str:
    parts = [_failure(failure) for failure in header.failures]
    if header.summary:
        parts.append(_summary(header.summary))
    facts = {"SHA-256": header.sha256} | {
        name: "default" if value is None else str(value) for name, value in header.settings.items()
    }
    parts.append(f"<details><summary>File and settings</summary>{_facts(facts)}</details>")
    return f'<section class="note" aria-label="Document">{"".join(parts)}</section>\n'


def _page(page: PageResult, picture: tuple[str, bytes] | None) -> str:
    name = f"page-{page.number}"
    source = "" if page.failure else f"<small>text from: {escape(page.source)}</small>"
    seen = _image(page, picture) + "".join(_boxes(page, page.elements))
    sheet = f'<div class="sheet" style="{_sheet_style(page)}">{seen}</div>\n' if seen else ""
    texts = "".join(map(_element, page.elements))
    if not page.elements and not page.failure:
        texts = "<p>No text on this page.</p>"
    return f"""<section class="page" id="{name}" aria-label="Page {page.number}">
<h2>Page {page.number} <span class="mark {page.status}">{page.status}</span>{source}</h2>
{_failure(page.failure) if page.failure else ""}<div class="columns">
{sheet}<div>{texts}{_page_notes(page)}</div>
</div>
</section>
"""


def _sheet_style(page: PageResult) -> str:
    # A page that failed early has no size; A4 upright stands for it.
    wide, high = (page.width, page.height) if page.width > 0 < page.height else (210.0, 297.0)
    return f"aspect-ratio:{wide:.6g}/{high:.6g};--wide:{wide / high:.4f}"


def _image(page: PageResult, picture: tuple[str, bytes] | None) -> str:
    if picture is None:
        return ""
    kind, data = picture
    return (
        f'<img alt="Page {page.number}" loading="lazy" decoding="async" '
        f'src="data:{kind};base64,{base64.b64encode(data).decode()}">'
    )


def _boxes(page: PageResult, elements: tuple[Element, ...]) -> Iterator[str]:
    for element in elements:
        place = _place(element.box, page)
        if place:
            name = escape(element.id)
            label = escape(f"{element.category}: {element.text[:60]}")
            yield (
                f'<a class="box {_style(element.category)}" id="b-{name}" href="#{name}" '
                f'style="{place}" aria-label="{label}" title="{element.category}"></a>'
            )
        yield from _boxes(page, element.children)


def _place(box: Box, page: PageResult) -> str:
    if page.width <= 0 or page.height <= 0 or box.width <= 0 or box.height <= 0:
        return ""
    shares = (
        ("left", box.left / page.width),
        ("top", box.top / page.height),
        ("width", box.width / page.width),
        ("height", box.height / page.height),
    )
    return ";".join(f"{side}:{100 * share:.2f}%" for side, share in shares)


def _element(element: Element) -> str:
    name = escape(element.id)
    children = "".join(map(_element, element.children))
    rtl = ' dir="rtl"' if element.rtl else ""
    return (
        f'<div class="el {_style(element.category)}" id="{name}" tabindex="0"{rtl}>'
        f'<span class="tag" dir="ltr">{element.category}</span>{_content(element)}'
        f'<span class="about" dir="ltr">{_about(element)}</span>{children}</div>\n'
    )


def _content(element: Element) -> str:
    if element.table is not None:
        return f'<div class="wide">{to_html(element.table)}</div>'
    text = escape(element.text)
    match element.category:
        case Category.TITLE:
            return f"<h3>{text}</h3>"
        case Category.SECTION_HEADER:
            level = min(max(element.level or 1, 1) + 3, 6)
            return f"<h{level}>{text}</h{level}>"
        case Category.LIST_ITEM:
            indent = 1.2 * (max(element.level or 1, 1) - 1)
            marker = escape(element.marker or "•")
            return f'<p style="margin-left:{indent:.1f}em">{marker} {text}</p>'
        case Category.FORMULA:
            return f"<pre>{text or '(formula, not read)'}</pre>"
        case _:
            return f"<p>{text}</p>" if text else ""


def _about(element: Element) -> str:
    box = element.box
    parts = [
        element.id,
        f"confidence {element.confidence:.2f}",
        f"box {box.left:.0f}, {box.top:.0f} to {box.right:.0f}, {box.bottom:.0f}",
    ]
    if element.level is not None:
        parts.append(f"level {element.level}")
    if element.caption_of:
        parts.append(f"caption of {element.caption_of}")
    if element.continues:
        parts.append("continues the text before it")
    return escape(" · ".join(parts))


def _page_notes(page: PageResult) -> str:
    facts = {"Text from": page.source.value, "Why": page.reason}
    if page.rotation:
        facts["Turned by"] = f"{page.rotation}° clockwise"
    if page.skew:
        facts["Levelled by"] = f"{page.skew:.2f}°"
    for at, attempt in enumerate(page.attempts, 1):
        kept = "kept" if attempt.kept else "not kept"
        facts[f"Attempt {at}"] = f"{attempt.stage}, {kept}: {attempt.reason}"
    summary = f"{_summary(page.summary)}" if page.summary else ""
    title = "Summary, source and attempts" if summary else "Source and attempts"
    return f"<details><summary>{title}</summary>{summary}{_facts(facts)}</details>"


def _summary(summary: Summary) -> str:
    lines = "".join(
        f'<li>{escape(s.text)} <a href="#{escape(s.element_id)}" aria-label="Source">↗</a></li>'
        for s in summary.sentences
    )
    return f'<h2>Summary ({escape(summary.kind)})</h2><ul class="summary">{lines}</ul>'


def _facts(facts: dict[str, str]) -> str:
    rows = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items() if v)
    return f"<dl>{''.join(rows)}</dl>"


def _failure(failure: Failure) -> str:
    step = f"<p>{escape(failure.next_step)}</p>" if failure.next_step else ""
    return (
        f'<div class="error" role="note"><p><strong>{escape(failure.error)}</strong>: '
        f"{escape(failure.what)}</p>{step}</div>\n"
    )


def _bar(header: ReportHeader, marks: list[tuple[int, PageStatus]]) -> str:
    status = ReportStatus.of((mark for _, mark in marks), header.failures)
    links = "".join(
        f'<a class="{mark}" href="#page-{number}" title="Page {number}: {mark}">{number}</a>'
        for number, mark in marks
    )
    toggles = "".join(
        f'<label class="{_style(category)}"><input type="checkbox" checked '
        f'value="{_style(category)}"><i></i>{category}</label>'
        for category in Category
    )
    count = f"{len(marks)} of {header.page_count} pages"
    return (
        f'<header id="bar"><h1>{escape(header.source)} <span class="mark {status}">{status}</span>'
        f'<small>{count}</small></h1><nav id="pages" aria-label="Pages">{links}</nav>'
        f'<div id="legend" role="group" aria-label="Categories shown">{toggles}</div></header>'
    )


def _style(category: Category) -> str:
    return category.value.lower()


def _asset(name: str) -> str:
    return files("octavo.pipeline").joinpath("assets", name).read_text("utf-8")
