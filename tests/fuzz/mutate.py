"""Ways to damage a file, each a function of its bytes and a source of chance."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

_NUMBERS = (b"0", b"-1", b"1", b"65536", b"2147483648", b"9" * 20, b"1e38", b"0.00001")
_BOXES = (
    b"[0 0 0 0]",
    b"[0 0 14400 14400]",
    b"[0 0 10000000 10000000]",
    b"[0 0 1e30 1e30]",
    b"[0 0 0.01 0.01]",
    b"[100 100 -100 -100]",
    b"[0 0 420]",
    b"[0 0 1000000 1]",
    b"null",
)
_FILTERS = (
    b"/LZWDecode",
    b"/DCTDecode",
    b"/JPXDecode",
    b"/JBIG2Decode",
    b"/CCITTFaxDecode",
    b"/RunLengthDecode",
    b"/NoSuchFilter",
    b"[" + b"/FlateDecode " * 40 + b"]",
    b"/Crypt",
)


def flip(data: bytes, chance: random.Random) -> bytes:
    """Single bits, one to sixty-four of them."""
    out = bytearray(data)
    for _ in range(1 << chance.randrange(7)):
        out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    return bytes(out)


def overwrite(data: bytes, chance: random.Random) -> bytes:
    at, size = _chunk(data, chance)
    return data[:at] + chance.randbytes(size) + data[at + size :]


def delete(data: bytes, chance: random.Random) -> bytes:
    at, size = _chunk(data, chance)
    return data[:at] + data[at + size :]


def duplicate(data: bytes, chance: random.Random) -> bytes:
    at, size = _chunk(data, chance)
    return data[: at + size] + data[at:]


def insert(data: bytes, chance: random.Random) -> bytes:
    at, size = _chunk(data, chance)
    return data[:at] + chance.randbytes(size) + data[at:]


def truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(1, len(data))]


def blank(data: bytes, chance: random.Random) -> bytes:
    """Zeros, as a download that was given its size and not its content."""
    at, size = _chunk(data, chance)
    return data[:at] + bytes(size) + data[at + size :]


def swap_numbers(data: bytes, chance: random.Random) -> bytes:
    """One to eight numbers of dictionaries and tables become others."""
    for _ in range(1 << chance.randrange(4)):
        data = _replace_one(data, rb"(?<=[ \[])\d+(?=[ \]\r\n/>])", chance.choice(_NUMBERS), chance)
    return data


def page_box(data: bytes, chance: random.Random) -> bytes:
    return re.sub(rb"/MediaBox\s*\[[^\]]*\]", b"/MediaBox " + chance.choice(_BOXES), data)


def cyclic_pages(data: bytes, chance: random.Random) -> bytes:
    """The tree of pages has itself among its leaves, and says that it has very many."""
    found = re.search(rb"(\d+) 0 obj(?:(?!endobj).)*?/Type\s*/Pages", data, re.DOTALL)
    own = found[1] if found else b"1"
    data = re.sub(rb"/Kids\s*\[[^\]]*\]", b"/Kids [ %s 0 R %s 0 R ]" % (own, own), data)
    return re.sub(rb"/Count \d+", b"/Count %d" % chance.choice((2, 5, 500, 10**9, -3)), data)


def bad_xref(data: bytes, chance: random.Random) -> bytes:
    """The table of offsets points elsewhere, is gone, or the way to it is wrong."""
    start = max(data.rfind(b"xref\n"), 0)
    match chance.randrange(4):
        case 0:
            return re.sub(rb"startxref\s+\d+", b"startxref\n%d" % chance.randrange(10**6), data)
        case 1:
            return data[: data.find(b"xref")]
        case 2:
            return data.replace(b"trailer", b"tra1ler")
        case _:
            return data[:start] + re.sub(
                rb"\d{10}", lambda _: b"%010d" % chance.randrange(len(data)), data[start:]
            )


def bad_filter(data: bytes, chance: random.Random) -> bytes:
    return _replace_one(data, rb"/(?:Flate|ASCII85|DCT)Decode", chance.choice(_FILTERS), chance)


def lose_object(data: bytes, chance: random.Random) -> bytes:
    """A reference leads to nothing, or to an object of another kind."""
    return _replace_one(data, rb"\d+ 0 R", b"%d 0 R" % chance.randrange(1, 20), chance)


def lie_in_header(data: bytes, chance: random.Random) -> bytes:
    """Numbers near the start of a picture, where it says how large it is."""
    out = bytearray(data)
    value = chance.choice((0, 1, 0xFFFF, 0x7FFF, 0x8000, chance.randrange(1 << 16)))
    struct.pack_into(
        chance.choice("<>") + "H", out, chance.randrange(4, min(200, len(out) - 2)), value
    )
    return bytes(out)


BYTES: tuple[Mutation, ...] = (flip, overwrite, delete, duplicate, insert, truncate, blank)
PDF: tuple[Mutation, ...] = (
    swap_numbers,
    page_box,
    cyclic_pages,
    bad_xref,
    bad_filter,
    lose_object,
)
PICTURE: tuple[Mutation, ...] = (lie_in_header,)


def _chunk(data: bytes, chance: random.Random) -> tuple[int, int]:
    """Place and size of a part: mostly short, at times a large share of the file."""
    return chance.randrange(len(data)), chance.choice((1, 4, 32, 256, len(data) // 8))


def _replace_one(data: bytes, pattern: bytes, by: bytes, chance: random.Random) -> bytes:
    found = list(re.finditer(pattern, data))
    if not found:
        return data
    at = chance.choice(found)
    return data[: at.start()] + by + data[at.end() :]
