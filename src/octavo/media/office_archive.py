"""What is checked before an Office file is handed to a library: size, wholeness, locks.

The package is read through once, part by part, and nothing of it is kept. So the limits hold for
the bytes that come out and not for the sizes that the archive declares.
"""

from __future__ import annotations

import mmap
import zipfile
import zlib
from pathlib import Path

from octavo.errors import BrokenFile, InputError, LimitExceeded, PasswordRequired, UnsupportedFormat

OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
#: Bytes of all parts together.
MAX_TOTAL = 1 << 30
#: Bytes of one part of XML; a tree of it takes about ten times as much memory.
MAX_XML = 256 << 20
#: Parts in one package.
MAX_PARTS = 20_000
#: Bytes out for each byte in, once ``_RATIO_FROM`` bytes are out. Sheets of equal rows reach 60.
MAX_RATIO = 200
_RATIO_FROM = 32 << 20
_CHUNK = 1 << 20
_XML = (".xml", ".rels", ".vml")
#: A part must have no document type (ECMA-376 part 2, 8.1.4), so entities have no way in.
_DOCTYPES = tuple("<!DOCTYPE".encode(code) for code in ("utf-8", "utf-16-le", "utf-16-be"))
_LEGACY = {
    "WordDocument": ("an old Word file (.doc)", ".docx"),
    "PowerPoint Document": ("an old PowerPoint file (.ppt)", ".pptx"),
    "Workbook": ("an old Excel file (.xls)", ".xlsx"),
    "Book": ("an old Excel file (.xls)", ".xlsx"),
}


def check_archive(path: Path) -> None:
    """Reads the package through.

    Raises:
        LimitExceeded: it unfolds to more than ``MAX_TOTAL``, one of its parts to more than
            ``MAX_XML``, it grows more than ``MAX_RATIO`` times, or has too many parts.
        BrokenFile: cut short, damaged, or with a document type in a part.
        PasswordRequired: a part is encrypted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_parts(archive, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        raise BrokenFile(
            f"the archive is damaged or cut short: {error}",
            where=str(path),
            next_step="get the file again, or open and save it in its own program",
        ) from error
    except NotImplementedError as error:
        raise UnsupportedFormat(
            f"the archive is packed in an unusual way: {error}",
            where=str(path),
            next_step="open and save it in its own program",
        ) from error


def _check_parts(archive: zipfile.ZipFile, path: Path) -> None:
    parts = archive.infolist()
    if len(parts) > MAX_PARTS:
        raise _over(path, f"{len(parts)} parts, {MAX_PARTS} are allowed")
    packed = max(path.stat().st_size, 1)
    total = 0
    for part in parts:
        if part.flag_bits & 1:
            raise locked(path)
        xml = part.filename.lower().endswith(_XML)
        size, tail = 0, b""
        with archive.open(part) as stream:
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                total += len(chunk)
                if total > MAX_TOTAL:
                    raise _over(path, f"more than {MAX_TOTAL >> 20} MiB when unpacked")
                if total > _RATIO_FROM and total > MAX_RATIO * packed:
                    raise _over(path, f"it grows more than {MAX_RATIO} times when unpacked")
                if xml and size > MAX_XML:
                    raise _over(path, f"{part.filename}: more than {MAX_XML >> 20} MiB of XML")
                # A word may lie across two chunks.
                if xml and any(word in tail + chunk for word in _DOCTYPES):
                    raise BrokenFile(
                        f"{part.filename} declares a document type, which Office files must not",
                        where=str(path),
                        next_step="do not trust this file",
                    )
                tail = chunk[-32:]


def ole_error(path: Path) -> InputError:
    """What to say of a compound file: locked by a password, or of the kind before 2007.

    The names of its streams stand in its directory in fields of 64 bytes (MS-CFB 2.6.1).
    """
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        if data.find(_entry("EncryptedPackage")) >= 0:
            return locked(path)
        for stream, (kind, now) in _LEGACY.items():
            if data.find(_entry(stream)) >= 0:
                return UnsupportedFormat(
                    f"this is {kind}", where=str(path), next_step=f"save it as {now}"
                )
    return UnsupportedFormat(
        "a compound file (OLE) that is no Office document",
        where=str(path),
        next_step="save it as .docx, .pptx, .xlsx or PDF",
    )


def locked(path: Path) -> PasswordRequired:
    return PasswordRequired(
        "the Office file is encrypted with a password",
        where=str(path),
        next_step="open it in its own program and save it without a password",
    )


def _over(path: Path, why: str) -> LimitExceeded:
    return LimitExceeded(
        f"the archive is too large: {why}",
        where=str(path),
        next_step="take out pictures or sheets, or split the file",
    )


def _entry(name: str) -> bytes:
    return name.encode("utf-16-le").ljust(64, b"\0")
