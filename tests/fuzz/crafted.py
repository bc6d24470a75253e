"""Files built to be hostile: each is well formed and asks for something unreasonable."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"
_HELLO = b"BT /F 12 Tf 20 150 Td (Hello there) Tj ET "


def crafted() -> dict[str, bytes]:
    """By name; each ends in a fraction of a second."""
    return {**_pages(), **_forms(), **_pictures_in_pdf(), **_content(), **_pictures()}


def bombs() -> dict[str, bytes]:
    """By name; each may use up a page's time or memory."""
    return {
        "forms-ten-to-the-eighth.pdf": pdf(b"/X0 Do", nested_forms(8, 10)),
        "words-in-one-place.pdf": pdf(_HELLO * 30_000),
        "words-everywhere.pdf": pdf(_scattered(30_000)),
        "a-hundred-thousand-lines.pdf": pdf(
            b"".join(b"%d %d m %d %d l S " % (n % 400, 0, n % 400, 400) for n in range(100_000))
        ),
        "grid-of-a-thousand.pdf": pdf(_grid(1000)),
        "stream-of-zeros.pdf": pdf(b" " * 100_000_000),
        "picture-of-a-gigapixel.pdf": pdf(
            b"q 400 0 0 400 0 0 cm /I Do Q",
            xobject=b"/I 9 0 R",
            extra={
                9: stream(
                    image_dict(30_000, 30_000) + b"/Filter/FlateDecode",
                    zlib.compress(bytes(30_000 * 3750)),
                )
            },
        ),
        "one-very-long-word.pdf": pdf(b"BT /F 8 Tf 5 150 Td (" + b"x" * 1_000_000 + b") Tj ET"),
        "thousand-pages.pdf": many_pages(1000),
    }


def pdf(
    content: bytes,
    extra: Mapping[int, bytes] | None = None,
    *,
    xobject: bytes = b"",
    page: bytes = b"/MediaBox[0 0 400 400]",
    font: bytes = FONT,
) -> bytes:
    """A PDF of one page; objects from 6 on are the caller's."""
    extra = dict(extra or {})
    names = b" ".join(b"/X%d %d 0 R" % (number - 10, number) for number in extra if number >= 10)
    objects = {
        1: b"<</Type/Catalog/Pages 2 0 R>>",
        2: b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: b"<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F 5 0 R>>"
        b"/XObject<<" + xobject + names + b">>>>" + page + b">>",
        4: stream(b"/Filter/FlateDecode", zlib.compress(content)),
        5: font,
        **extra,
    }
    return assembled(objects)


def assembled(objects: Mapping[int, bytes]) -> bytes:
    """The file of these objects, with a right table of offsets."""
    out = bytearray(b"%PDF-1.7\n")
    offsets = {}
    for number, body in sorted(objects.items()):
        offsets[number] = len(out)
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start, size = len(out), max(objects) + 1
    out += b"xref\n0 %d\n0000000000 65535 f \n" % size
    for number in range(1, size):
        out += b"%010d 00000 %c \n" % (offsets.get(number, 0), b"fn"[number in offsets])
    out += b"trailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (size, start)
    return bytes(out)


def stream(entries: bytes, data: bytes) -> bytes:
    return b"<<%s/Length %d>>\nstream\n%s\nendstream" % (entries, len(data), data)


def image_dict(wide: int, high: int, bits: int = 1, more: bytes = b"") -> bytes:
    size = b"/Width %d/Height %d/BitsPerComponent %d" % (wide, high, bits)
    return b"/Type/XObject/Subtype/Image" + size + (more or b"/ColorSpace/DeviceGray")


def form(content: bytes, resources: bytes = b"") -> bytes:
    head = b"/Type/XObject/Subtype/Form/BBox[0 0 400 400]/Resources<<" + resources + b">>"
    return stream(head, content)


def nested_forms(depth: int, each: int) -> dict[int, bytes]:
    """Forms 10, 11, …, each of which draws the next one ``each`` times."""
    forms = {
        10 + at: form(b"/N Do " * each, b"/XObject<</N %d 0 R>>" % (11 + at)) for at in range(depth)
    }
    forms[10 + depth] = form(b"0 0 10 10 re f")
    return forms


def many_pages(count: int) -> bytes:
    kids = b" ".join(b"%d 0 R" % (10 + at) for at in range(count))
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]>>"
    return assembled(
        {
            1: b"<</Type/Catalog/Pages 2 0 R>>",
            2: b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, count),
            **{10 + at: page for at in range(count)},
        }
    )


def png(wide: int, high: int, data: bytes, *, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG that says it is ``wide`` × ``high`` and holds ``data``, whatever its size."""
    header = struct.pack(">IIBBBBB", wide, high, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _pages() -> dict[str, bytes]:
    boxes = {
        "none": b"",
        "zero": b"/MediaBox[0 0 0 0]",
        "backwards": b"/MediaBox[400 400 0 0]",
        "huge": b"/MediaBox[0 0 1e8 1e8]",
        "dot": b"/MediaBox[0 0 0.001 0.001]",
        "ribbon": b"/MediaBox[0 0 200000 2]",
        "far": b"/MediaBox[1e9 1e9 1000000400 1000000400]",
        "crop-elsewhere": b"/MediaBox[0 0 400 400]/CropBox[500 500 600 600]",
        "rotated-by-45": b"/MediaBox[0 0 400 400]/Rotate 45",
        "unit": b"/MediaBox[0 0 400 400]/UserUnit 1e9",
    }
    return {f"page-{name}.pdf": pdf(_HELLO, page=box) for name, box in boxes.items()} | {
        "no-pages.pdf": many_pages(0),
        "pages-in-a-ring.pdf": assembled(
            {
                1: b"<</Type/Catalog/Pages 2 0 R>>",
                2: b"<</Type/Pages/Kids[3 0 R]/Count 2>>",
                3: b"<</Type/Pages/Parent 2 0 R/Kids[2 0 R 3 0 R]/Count 2>>",
            }
        ),
        "count-lies.pdf": pdf(_HELLO).replace(b"/Count 1", b"/Count 9"),
        "page-long-and-thin.pdf": pdf(b"0 0 m 2 80000 l S", page=b"/MediaBox[0 0 2 90000]"),
        "only-a-header.pdf": b"%PDF-1.7\n",
    }


def _forms() -> dict[str, bytes]:
    itself = form(b"/N Do", b"/XObject<</N 10 0 R>>")
    there = form(b"/N Do", b"/XObject<</N 11 0 R>>")
    return {
        "form-in-itself.pdf": pdf(_HELLO + b"/X0 Do", {10: itself}),
        "forms-in-a-ring.pdf": pdf(_HELLO + b"/X0 Do", {10: there, 11: itself}),
        "forms-five-hundred-deep.pdf": pdf(_HELLO + b"/X0 Do", nested_forms(500, 1)),
        "forms-thousandfold.pdf": pdf(_HELLO + b"/X0 Do", nested_forms(3, 10)),
    }


def _pictures_in_pdf() -> dict[str, bytes]:
    liars = {
        "wider-than-its-data": image_dict(60_000, 60_000),
        "of-no-size": image_dict(0, 0),
        "of-negative-size": image_dict(-5, -5),
        "of-17-bits": image_dict(8, 8, 17),
        "without-colours": image_dict(8, 8, 8, b"/ColorSpace 9 0 R"),
        "not-a-jpeg": image_dict(8, 8, 8, b"/ColorSpace/DeviceRGB/Filter/DCTDecode"),
        "not-a-jpeg2000": image_dict(8, 8, 8, b"/Filter/JPXDecode"),
        "not-a-fax": image_dict(
            800, 800, 1, b"/ImageMask true/Filter/CCITTFaxDecode/DecodeParms<</K -1/Columns 90000>>"
        ),
    }
    content = _HELLO + b"q 200 0 0 200 50 50 cm /I Do Q"
    return {
        f"picture-{name}.pdf": pdf(content, {9: stream(head, b"\x55" * 64)}, xobject=b"/I 9 0 R")
        for name, head in liars.items()
    }


def _content() -> dict[str, bytes]:
    type3 = (
        b"<</Type/Font/Subtype/Type3/FontBBox[0 0 1 1]/FontMatrix[1 0 0 1 0 0]/FirstChar 72"
        b"/LastChar 72/Widths[1]/Encoding<</Differences[72/H]>>/CharProcs<</H 4 0 R>>"
        b"/Resources<</Font<</F 5 0 R>>>>>>"
    )
    return {
        "states-unbalanced.pdf": pdf(b"Q " * 20_000 + _HELLO + b"q " * 20_000),
        "matrix-without-area.pdf": pdf(b"0 0 0 0 0 0 cm " + _HELLO),
        "matrix-without-end.pdf": pdf(b"1e30 0 0 1e30 1e30 1e30 cm " + _HELLO),
        "type-of-a-light-year.pdf": pdf(b"BT /F 1e30 Tf 20 150 Td (Hello) Tj ET" + _HELLO),
        "type-of-nothing.pdf": pdf(b"BT /F 0 Tf 20 150 Td (Hello) Tj ET" + _HELLO),
        "type-upside-down.pdf": pdf(b"BT /F -12 Tf 20 150 Td (Hello) Tj ET" + _HELLO),
        "glyph-that-draws-itself.pdf": pdf(_HELLO, font=type3),
        "operators-without-operands.pdf": pdf(b"Tj TJ cm re l c Do Tf gs sh " * 500 + _HELLO),
        "brackets.pdf": pdf(b"[" * 20_000 + b"(" * 20_000),
        "binary.pdf": pdf(bytes(range(256)) * 200),
    }


def _pictures() -> dict[str, bytes]:
    return {
        "wider-than-its-data.png": png(5000, 5000, bytes(100)),
        "too-large.png": png(60_000, 60_000, bytes(100)),
        "of-no-size.png": png(0, 0, b""),
        "sixteen-bits.png": png(9, 9, bytes(9 * 19), bits=16, colour=0),
        "of-no-colour-type.png": png(9, 9, bytes(300), colour=5),
        "one-pixel.png": png(1, 1, bytes(4)),
        "one-line.png": png(20_000, 1, bytes(60_001)),
        "one-column.png": png(1, 20_000, bytes(80_000)),
        "only-a-header.jpg": b"\xff\xd8\xff\xe0\x00\x10JFIF",
        "only-a-header.gif": b"GIF89a\xff\xff\xff\xff\x00\x00\x00",
        "directory-in-a-ring.tiff": b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00",
    }


def _grid(count: int) -> bytes:
    rule = b"%.2f 0 m %.2f 400 l S 0 %.2f m 400 %.2f l S "
    return b"".join(rule % ((n * 400 / count,) * 4) for n in range(count))


def _scattered(count: int) -> bytes:
    words = (
        b"BT /F 3 Tf %d.%d %d.%d Td (w%d) Tj ET " % (n * 7 % 400, n % 10, n * 13 % 400, n % 7, n)
        for n in range(count)
    )
    return b"".join(words)
