"""A reader and a worker for the tests: quick, the same every time, and faulty on demand."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from octavo.media.page import Page
from octavo.pipeline.config import PipelineConfig
from octavo.types import Box, Category, Element, PageResult, TextSource

#: The command of a worker whose reader is ``DoubleReader``.
DOUBLE_WORKER = (sys.executable, "-P", str(Path(__file__)))

#: Faults for the double worker, such as ``3:segv,5:hang``; ``3:once=/path`` crashes page 3 once.
FAULTS = "DOUBLE_FAULTS"
DELAY = "DOUBLE_DELAY"


class DoubleReader:
    """The words of a page as one text, the drawn square as a picture. Takes ``ahead`` pages."""

    def __init__(self, faults: str = "", delay: float = 0.0, ahead: int = 0) -> None:
        self.faults = dict(part.split(":", 1) for part in faults.split(",") if part)
        self.delay = delay
        self.ahead = ahead
        self.read_numbers: list[int] = []
        self.closed = False

    def read(self, pages: Iterable[Page]) -> Iterator[PageResult]:
        waiting: list[Page] = []
        for page in pages:
            waiting.append(page)
            if len(waiting) > self.ahead:
                yield self._one(waiting.pop(0))
        while waiting:
            yield self._one(waiting.pop(0))

    def close(self) -> None:
        self.closed = True

    def _one(self, page: Page) -> PageResult:
        self.read_numbers.append(page.number)
        time.sleep(self.delay)
        fault, _, path = self.faults.get(str(page.number), "").partition("=")
        if fault == "segv":
            os.kill(os.getpid(), signal.SIGSEGV)
        if fault == "hang":
            time.sleep(600)
        if fault == "hoard":
            hoard = b"x" * (320 << 20)
            time.sleep(600)
            del hoard
        if fault == "raise":
            raise ZeroDivisionError("no such luck")
        if fault == "once" and not Path(path).exists():
            Path(path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "chatter":
            os.write(1, b"a native library prints to standard output\n")
            print("so does Python")
        words = " ".join(word.text for word in page.text_layer().words)
        size = float("nan") if fault == "nan" else 12.0
        return PageResult(
            page.number,
            page.width,
            page.height,
            (
                Element(f"p{page.number}-e1", Category.TEXT, Box(72, 380, 400, 398), words),
                Element(
                    f"p{page.number}-e2", Category.PICTURE, Box(100, 200, 200, 300), font_size=size
                ),
                Element(
                    f"p{page.number}-e3",
                    Category.CAPTION,
                    Box(100, 305, 200, 315),
                    "A square.",
                    caption_of=f"p{page.number}-e2",
                ),
            ),
            TextSource.TEXT_LAYER,
            timings={"read": time.time() % 1.0},
        )


def draw_pdf(path: Path, pages: int, word: str = "Folio") -> Path:
    """Pages of 612 × 792 points with the text ``Folio <n> of the book.`` in the middle and, from
    (100, 200) to (200, 300) counted from the top left, a red square with a black first quarter.
    """
    # Here and below: the worker draws nothing, and every import is paid at each of its starts.
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path), pagesize=(612, 792), invariant=True)
    for number in range(1, pages + 1):
        canvas.setFont("Helvetica", 12)
        canvas.drawString(72, 792 - 394, f"{word} {number} of the book.")
        canvas.setFillColorRGB(1, 0, 0)
        canvas.rect(100, 792 - 300, 100, 100, stroke=0, fill=1)
        canvas.setFillColorRGB(0, 0, 0)
        canvas.rect(100, 792 - 250, 50, 50, stroke=0, fill=1)
        canvas.showPage()
    canvas.save()
    return path


def draw_picture(path: Path) -> Path:
    """612 × 792 pixels with the square of ``draw_pdf``."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (612, 792), "white")
    drawing = ImageDraw.Draw(image)
    drawing.rectangle((100, 200, 199, 299), fill=(255, 0, 0))
    drawing.rectangle((100, 200, 149, 249), fill=(0, 0, 0))
    image.save(path)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but the journal."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("journal.")
    }


def is_running(pid: int) -> bool:
    """Whether the process is there and not a corpse that nobody has collected."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def _main() -> None:
    from octavo.pipeline import session, worker

    reader = DoubleReader(os.environ.get(FAULTS, ""), float(os.environ.get(DELAY, "0")))

    class DoubleShelf(session.ReaderShelf):
        def get(self, config: PipelineConfig) -> DoubleReader:
            del config
            return reader

    worker.ReaderShelf = DoubleShelf
    worker.main()


if __name__ == "__main__":
    _main()
