"""Tells what a file is by its content, and opens it."""

from __future__ import annotations

import re
import zipfile
from enum import StrEnum
from pathlib import Path

from octavo.errors import BrokenFile, InputError, UnsupportedFormat
from octavo.media.files import read_head
from octavo.media.office_archive import OLE_MAGIC, ole_error
from octavo.media.page import Source
from octavo.media.pictures import is_picture

#: A PDF's header stands within so many bytes (ISO 32000-1, implementation note 13).
_HEAD = 1024
_ZIP = b"PK\x03\x04"
_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|title|meta"
    r"|div|table|article|section|main|p|h[1-6])\b",
    re.IGNORECASE | re.DOTALL,
)


class Kind(StrEnum):
    """What a file is."""

    PDF = "pdf"
    IMAGE = "image"
    DOCX = "docx"
    PPTX = "pptx"
    XLSX = "xlsx"
    HTML = "html"


_OFFICE_FOLDERS = {"word/": Kind.DOCX, "ppt/": Kind.PPTX, "xl/": Kind.XLSX}


def sniff(path: str | Path) -> Kind:
    """What a file is, by its content; its name does not count.

    Raises:
        SourceNotFound: there is no such file, or it is a folder.
        BrokenFile: empty, or an archive that cannot be listed.
        PasswordRequired: an Office file that is encrypted.
        UnsupportedFormat: none of the kinds, an Office file from before 2007 among them.
    """
    path = Path(path)
    head = read_head(path, _HEAD)
    if is_picture(head):
        return Kind.IMAGE
    if head.startswith(_ZIP):
        return _sniff_archive(path)
    if b"%PDF-" in head:
        return Kind.PDF
    if _HTML.match(_decoded(head)):
        return Kind.HTML
    if head.startswith(OLE_MAGIC):
        raise ole_error(path)
    raise _unknown(path)


def open_source(path: str | Path, password: str | None = None) -> Source:
    """Opens a PDF or a picture.

    Args:
        path: of the file; its content says what it is.
        password: for an encrypted PDF.

    Raises:
        InputError: an Office or HTML file, which has no pages to draw, or one of the errors of
            ``sniff``, ``open_pdf`` and ``open_image``.
    """
    path = Path(path)
    # The libraries behind the sources load only when a file needs them.
    match sniff(path):
        case Kind.PDF:
            from octavo.media.pdf import open_pdf

            return open_pdf(path, password)
        case Kind.IMAGE:
            from octavo.media.image import open_image

            return open_image(path)
        case kind:
            raise InputError(
                f"a file of kind {kind} is not made of pages",
                where=str(path),
                next_step="convert it with octavo.parse, which reads its text directly",
            )


def _sniff_archive(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise BrokenFile(
            "the archive is damaged or cut short",
            where=str(path),
            next_step="get the file again",
        ) from error
    for folder, kind in _OFFICE_FOLDERS.items():
        if any(name.startswith(folder) for name in names):
            return kind
    raise _unknown(path)


def _decoded(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head.decode("utf-16", "replace").lstrip("\ufeff")
    return head.decode("utf-8", "replace").lstrip("\ufeff")


def _unknown(path: Path) -> UnsupportedFormat:
    return UnsupportedFormat(
        "no reader for this kind of file",
        where=str(path),
        next_step="PDF, pictures, DOCX, PPTX, XLSX and HTML can be read",
    )
