"""What a file is, told by its content."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

from octavo.errors import (
    BrokenFile,
    InputError,
    PasswordRequired,
    SourceNotFound,
    UnsupportedFormat,
)
from octavo.media import Kind, open_source, sniff


def a_pdf(path: Path) -> bytes:
    canvas = Canvas(str(path))
    canvas.drawString(50, 50, "text")
    canvas.save()
    return path.read_bytes()


def test_names_do_not_count(tmp_path: Path) -> None:
    a_pdf(tmp_path / "really.png")
    Image.new("RGB", (5, 5)).save(tmp_path / "picture", format="PNG")
    assert sniff(tmp_path / "really.png") is Kind.PDF
    assert sniff(tmp_path / "picture") is Kind.IMAGE
    for name in ("really.png", "picture"):
        source = open_source(tmp_path / name)
        assert (source.name, len(source)) == (name, 1)
        source.close()


def test_a_header_after_rubbish(tmp_path: Path) -> None:
    data = a_pdf(tmp_path / "plain.pdf")
    (tmp_path / "mailed.pdf").write_bytes(b"From: someone\r\n" * 20 + data)
    assert sniff(tmp_path / "mailed.pdf") is Kind.PDF
    open_source(tmp_path / "mailed.pdf").close()


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "webp", "bmp", "ppm", "ico", "avif"])
def test_pictures(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"picture.{kind}"
    try:
        Image.new("RGB", (16, 16), "white").save(path)
    except (OSError, KeyError):
        pytest.skip(f"this Pillow cannot write {kind}")
    assert sniff(path) is Kind.IMAGE
    open_source(path).close()


@pytest.mark.parametrize(
    ("member", "kind"),
    [
        ("word/document.xml", Kind.DOCX),
        ("ppt/presentation.xml", Kind.PPTX),
        ("xl/workbook.xml", Kind.XLSX),
    ],
)
def test_office_archives(tmp_path: Path, member: str, kind: Kind) -> None:
    with zipfile.ZipFile(tmp_path / "office", "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(member, "<x/>")
    assert sniff(tmp_path / "office") is kind
    with pytest.raises(InputError, match="not made of pages"):
        open_source(tmp_path / "office")


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html><html></html>",
        "\n  <html><body>",
        '<?xml version="1.0"?>\n<!-- x -->\n<!doctype HTML>',
        "<h1>Title</h1>",
        "\ufeff<html>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_html(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "page").write_bytes(text.encode(encoding))
    assert sniff(tmp_path / "page") is Kind.HTML


@pytest.mark.parametrize(
    "data",
    [
        b"plain text, nothing more",
        b"\x00" * 2000,
        b"\x7fELF\x02\x01\x01",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600,
    ],
)
def test_the_unknown_is_unsupported(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "thing").write_bytes(data)
    with pytest.raises(UnsupportedFormat) as caught:
        open_source(tmp_path / "thing")
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("stream", "error", "says"),
    [
        ("EncryptedPackage", PasswordRequired, "encrypted"),
        ("WordDocument", UnsupportedFormat, "old Word file"),
        ("Workbook", UnsupportedFormat, "old Excel file"),
    ],
)
def test_a_compound_file_is_told_by_its_streams(
    tmp_path: Path, stream: str, error: type[InputError], says: str
) -> None:
    entry = stream.encode("utf-16-le").ljust(64, b"\0")
    path = tmp_path / "thing.docx"
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1016) + entry + bytes(448))
    with pytest.raises(error, match=says):
        sniff(path)


def test_an_archive_of_something_else_and_a_damaged_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "backup.zip", "w") as archive:
        archive.writestr("notes.txt", "x")
    with pytest.raises(UnsupportedFormat):
        sniff(tmp_path / "backup.zip")
    (tmp_path / "cut.docx").write_bytes((tmp_path / "backup.zip").read_bytes()[:40])
    with pytest.raises(BrokenFile, match="archive"):
        sniff(tmp_path / "cut.docx")


def test_missing_folder_and_empty(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no such file"):
        open_source(tmp_path / "missing.pdf")
    with pytest.raises(SourceNotFound, match="folder"):
        open_source(tmp_path)
    (tmp_path / "empty.pdf").touch()
    with pytest.raises(BrokenFile, match="empty"):
        open_source(tmp_path / "empty.pdf")


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a plain file"):
        open_source(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.pdf"
    path.write_bytes(b"%PDF-1.7")
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        open_source(path)


def test_importing_media_loads_no_heavy_library() -> None:
    code = (
        "import sys, octavo.media\n"
        "print([name for name in ('pypdfium2', 'PIL', 'cv2') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
