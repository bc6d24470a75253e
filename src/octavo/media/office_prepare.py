"""Office files made plain, within their libraries' own trees, before docling reads them.

docling makes an item of each run of one format and joins the items with spaces, which would cut
``inter<i>nation</i>al`` into three words. A report has no formats within a paragraph, so they are
taken out first. Page breaks are marked by a character that no text has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

#: Stands where a page of a DOCX begins: the last character for private use.
BREAK = "\U0010fffd"

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FORMATS = tuple(
    _W + name
    for name in ("b", "bCs", "i", "iCs", "u", "strike", "dstrike", "vertAlign", "caps", "smallCaps")
)
_INLINE = (
    "a abbr acronym b bdi bdo big cite del dfn em font i ins kbd mark q s samp small span "
    "strike strong sub sup time tt u var"
).split()
#: Joiners, dashes and quotation marks, which docling would make plain, and their stand-ins.
_KEPT = "\u200c\u200d\u2010\u2011\u2012\u2013\u2014\u2015\u2018\u2019\u201c\u201d\u2026"
_PUT_AWAY = {ord(char): 0xF0000 + at for at, char in enumerate(_KEPT)}
_PUT_BACK = {away: char for char, away in _PUT_AWAY.items()}
_NOT_SHOWN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_PERCENT = re.compile(r"0(?:\.(0+))?%")


def prepare_docx(document: Any) -> None:
    """Takes formats and links out of a ``docx.Document`` and marks where its pages begin."""
    body = document.element.body
    hidden = set(document.styles.element.xpath("w:style[w:rPr/w:vanish]/@w:styleId"))
    for properties in list(body.iter(_W + "rPr")):
        for item in list(properties):
            style = item.tag == _W + "rStyle" and item.get(_W + "val") not in hidden
            if style or item.tag in _FORMATS:
                properties.remove(item)
    for link in list(body.iter(_W + "hyperlink")):
        _unwrap(link)
    _mark_breaks(body)


def _unwrap(node: Any) -> None:
    for child in list(node):
        node.addprevious(child)
    node.getparent().remove(node)


def _mark_breaks(body: Any) -> None:
    # Word writes where a page began when it last saved (lastRenderedPageBreak), after a break
    # set by hand too: that one counts once. ``fresh``: nothing stands on the page yet.
    fresh = True
    for node in list(body.iter(*(_W + name for name in _BREAKING))):
        match node.tag.removeprefix(_W):
            case "t" if not (node.text or "").strip():
                pass
            case "t" | "drawing" | "pict" | "tbl":
                fresh = False
            case "br" if node.get(_W + "type") != "page":
                pass
            case "pageBreakBefore" if fresh or node.get(_W + "val") in ("0", "false", "off"):
                pass
            case "lastRenderedPageBreak" if fresh:
                node.getparent().remove(node)
            case "sectPr" if node.getparent().tag == _W + "pPr" and _opens_page(body, node):
                _mark(node, at_end=True)
                fresh = True
            case "sectPr":
                pass
            case _:
                _mark(node, at_end=False)
                fresh = True


_BREAKING = (
    "t", "drawing", "pict", "tbl", "br", "lastRenderedPageBreak", "pageBreakBefore", "sectPr",
)  # fmt: skip


def _opens_page(body: Any, section: Any) -> bool:
    """Whether the section after this one begins on a new page; its own type says so."""
    sections = list(body.iter(_W + "sectPr"))
    after = sections[sections.index(section) + 1 :]
    kind = after[0].find(_W + "type") if after else None
    return kind is None or kind.get(_W + "val") != "continuous"


def _mark(node: Any, *, at_end: bool) -> None:
    """Puts the mark in place of a break, or at an end of its paragraph, or after its table."""
    text = node.makeelement(_W + "t")
    text.text = BREAK
    run = node.makeelement(_W + "r")
    run.append(text)
    tables = [parent for parent in node.iterancestors() if parent.tag == _W + "tbl"]
    if tables:
        # A table stays whole, on the page where it begins.
        paragraph = node.makeelement(_W + "p")
        paragraph.append(run)
        tables[-1].addnext(paragraph)
    elif node.tag in (_W + "br", _W + "lastRenderedPageBreak"):
        node.getparent().replace(node, text)
    else:
        properties = next(node.iterancestors(_W + "pPr"))
        if at_end:
            properties.getparent().append(run)
        else:
            properties.addnext(run)


def prepare_html(soup: Any) -> None:
    """Takes formats, links and what is not shown out of a ``BeautifulSoup``."""
    for tag in soup.find_all(style=_NOT_SHOWN):
        if not tag.decomposed:
            tag.decompose()
    for tag in soup.find_all("nav"):
        # Menus are no running text; docling puts a footer among the furniture.
        tag.name = "footer"
    for tag in soup.find_all("wbr"):
        tag.decompose()
    for tag in soup.find_all(_INLINE):
        tag.unwrap()
    for tag in soup.find_all("code"):
        if tag.find_parent("pre") is None:
            tag.unwrap()
    soup.smooth()
    for text in soup.find_all(string=re.compile(f"[{_KEPT}]")):
        text.replace_with(text.translate(_PUT_AWAY))


def restored(text: str) -> str:
    """The text with the characters that ``prepare_html`` put away."""
    return text.translate(_PUT_BACK)


def prepare_xlsx(workbook: Any) -> None:
    """Writes dates, shares and floats as the sheet shows them, or nearly so."""
    for sheet in workbook.worksheets:
        for cell in _filled(sheet):
            cell.value = _shown(cell.value, cell.number_format)


def _filled(sheet: Any) -> Iterator[Any]:
    # The cells that the file has: a sheet may be a million empty rows deep. Merged cells other
    # than the first take no value.
    yield from (cell for cell in list(sheet._cells.values()) if cell.value is not None)


def _shown(value: object, number_format: str) -> object:
    if isinstance(value, datetime):
        midnight = value.time() == value.min.time()
        return value.date().isoformat() if midnight else value.isoformat(" ", "seconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float | int) and not isinstance(value, bool):
        if match := _PERCENT.fullmatch(number_format):
            return f"{value:.{len(match[1] or '')}%}"
        # Excel itself computes with 15 digits: 0.1 + 0.2 is 0.3.
        return f"{value:.15g}" if isinstance(value, float) else value
    return value
