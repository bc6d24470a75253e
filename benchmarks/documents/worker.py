"""One tool in a process of its own: paths in on standard input, Markdown out as JSON lines.

This file imports nothing of the project, so that a rival can run in an environment that has
only the rival: ``python worker.py TOOL``. Each line in is ``{"path": …}``; each line out is
``{"markdown": …, "seconds": …}`` or ``{"error": …}``. The first line out is the tool's version,
written when it is ready, so that the time of imports and models is not that of a page.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Convert = Callable[[str], str]


def markitdown() -> Convert:
    """As it comes."""
    from markitdown import MarkItDown

    tool: Any = MarkItDown()

    def convert(path: str) -> str:
        return str(tool.convert(path).text_content)

    return convert


def kreuzberg() -> Convert:
    """Markdown out, its own OCR engine for scans, no cache of earlier answers."""
    import kreuzberg as tool

    config: Any = tool.ExtractionConfig(
        output_format="markdown", ocr=tool.OcrConfig(), use_cache=False
    )

    def convert(path: str) -> str:
        result: Any = tool.extract_file_sync(path, config=config)
        return str(result.content)

    return convert


def rapidocr() -> Convert:
    """As it comes, at 200 dpi: its lines in its own order."""
    import pypdfium2
    from PIL import Image
    from rapidocr import RapidOCR

    engine: Any = RapidOCR()

    def pictures(path: str) -> Any:
        if path.lower().endswith(".pdf"):
            document = pypdfium2.PdfDocument(path)
            for page in document:
                yield page.render(scale=200 / 72).to_pil().convert("RGB")
            document.close()
        else:
            yield Image.open(path).convert("RGB")

    def convert(path: str) -> str:
        import numpy

        pages = [engine(numpy.asarray(picture)[:, :, ::-1]) for picture in pictures(path)]
        return "\n\n".join("\n".join(page.txts or ()) for page in pages)

    return convert


def text_layer() -> Convert:
    """What the PDF says about its own text, in the order of its content."""
    import pypdfium2

    def convert(path: str) -> str:
        if not path.lower().endswith(".pdf"):
            return ""
        document = pypdfium2.PdfDocument(path)
        pages = []
        for page in document:
            text = page.get_textpage()
            pages.append(str(text.get_text_range()))
            text.close()
            page.close()
        document.close()
        return "\n\n".join(pages).replace("\r\n", "\n")

    return convert


def octavo(**settings: Any) -> Convert:
    """One set of engines for all files, as for a folder of documents."""
    import octavo as tool

    converter: Any = tool.Converter(tool.PipelineConfig.build(**settings))

    def convert(path: str) -> str:
        return str(converter.parse(path).markdown())

    return convert


TOOLS: dict[str, tuple[str, Callable[[], Convert]]] = {
    "octavo": ("octavo", octavo),
    "octavo-fast": ("octavo", lambda: octavo(mode="fast")),
    "markitdown": ("markitdown", markitdown),
    "kreuzberg": ("kreuzberg", kreuzberg),
    "rapidocr": ("rapidocr", rapidocr),
    "text-layer": ("pypdfium2", text_layer),
}


def serve(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not fall between the answers

    def answer(value: dict[str, object]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    package, make = TOOLS[name]
    convert = make()
    answer({"ready": name, "version": importlib.metadata.version(package)})
    for line in sys.stdin:
        start = time.perf_counter()
        try:
            markdown = convert(json.loads(line)["path"])
        except Exception as error:  # noqa: BLE001 - whatever a rival raises is its answer
            answer({"error": f"{type(error).__name__}: {error}"[:2000]})
        else:
            answer({"markdown": markdown, "seconds": time.perf_counter() - start})


if __name__ == "__main__":
    serve(sys.argv[1])
