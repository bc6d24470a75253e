"""Documents drawn for the rules: their truth is known because we wrote them.

They stand where the corpus has gaps or is absent: newspapers, dictionaries, old letters,
invoices, forms, rotated scans. Every drawing gives the same bytes every time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from benchmarks.documents.drawn import letters, lists, press, tables

DOCUMENTS: dict[str, Callable[[Path], None]] = {
    **press.DOCUMENTS,
    **tables.DOCUMENTS,
    **letters.DOCUMENTS,
    **lists.DOCUMENTS,
}


def draw(name: str, folder: Path) -> Path:
    """The drawn document ``name``; drawn once for a state of this package."""
    place = folder / _state() / name
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f"{os.getpid()}-{name}")
        DOCUMENTS[name](part)
        part.replace(place)
    return place


@cache
def _state() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]
