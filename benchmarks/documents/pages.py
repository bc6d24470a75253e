"""The pages that the rules speak of, each as a file of its own.

Every tool is given one page and nothing else: a running head has to be known for what it is
without seeing it again on the next page, as an outside judge would ask.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pypdfium2 as pdfium

from benchmarks.documents import drawn

#: Where a run keeps single pages and the rivals' answers.
WORK = Path(tempfile.gettempdir()) / "octavo-bench"

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Missing(LookupError):
    """The document is not on this machine."""


def corpus_folder(given: str | None) -> Path | None:
    """The folder named on the command line or by ``BENCH_CORPUS``."""
    name = given or os.environ.get("BENCH_CORPUS")
    return Path(name) if name else None


class Pages:
    """Single-page files by document and page."""

    def __init__(self, corpus: Path | None, work: Path = WORK) -> None:
        self._corpus = corpus
        self._work = work

    def path(self, doc: str, page: int, password: str = "") -> Path:
        """A single-page PDF, or the picture itself."""
        source = self.source(doc)
        if source.suffix.lower() != ".pdf":
            return source
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
        place = self._work / "pages" / f"{source.stem}-{page}-{digest}.pdf"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _extract(source, page, password, place)
        return place

    def source(self, doc: str) -> Path:
        """The whole document; raises ``Missing`` where the corpus lacks it."""
        kind, _, name = doc.partition("/")
        if kind == "drawn":
            return drawn.draw(name, self._work / "drawn")
        if kind == "examples":
            return EXAMPLES / name
        if self._corpus is None:
            raise Missing(f"{doc}: no corpus (--corpus DIR or BENCH_CORPUS)")
        path = self._corpus / name
        if not path.exists():
            raise Missing(f"{doc}: not in {self._corpus}")
        return path


def _extract(source: Path, page: int, password: str, place: Path) -> None:
    document = pdfium.PdfDocument(source, password=password or None)
    single = pdfium.PdfDocument.new()
    try:
        single.import_pages(document, [page - 1])
        part = place.with_suffix(f".{os.getpid()}.part")
        single.save(str(part))
        part.replace(place)
    finally:
        single.close()
        document.close()
