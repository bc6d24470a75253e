"""Signatures of picture formats. Imports nothing heavy: ``sniff`` needs no more."""

from __future__ import annotations

_SIGNATURES = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
    b"BM",
    b"\x00\x00\x01\x00",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    b"\xff\x4f\xff\x51",
    *(b"P%d" % n + space for n in range(1, 7) for space in (b"\n", b" ", b"\r", b"\t")),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")


def is_picture(head: bytes) -> bool:
    """Whether the first 32 bytes or more are those of a picture that may be opened."""
    return (
        head.startswith(_SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS + _AVIF_BRANDS)
    )


def is_heif(head: bytes) -> bool:
    """HEIC and its kin, which Pillow reads by a plugin. AVIF it reads by itself."""
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS and b"avif" not in head[16:32]
