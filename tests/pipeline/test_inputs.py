"""What a user names becomes files: sorted, once each, and never our own results."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.errors import SourceNotFound
from octavo.pipeline.inputs import find_inputs


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (
        "b.pdf",
        "a.PDF",
        "notes.txt",
        ".hidden.pdf",
        "scans/2.png",
        "scans/1.jpg",
        "scans/.cache/3.png",
        "scans/deep/4.tif",
        "out/a/pages/0001.jpg",
        "odd[1].pdf",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*inputs: str, out: Path | None = Path("out")) -> list[str]:
    found = find_inputs(inputs, out)
    return [
        f"{type(item).__name__} {item.where}" if isinstance(item, SourceNotFound) else str(item)
        for item in found
    ]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["b.pdf", "a.PDF"], ["b.pdf", "a.PDF"]),
        (["b.pdf", "./b.pdf"], ["b.pdf"]),
        (["notes.txt"], ["notes.txt"]),
        (["scans"], ["scans/1.jpg", "scans/2.png", "scans/deep/4.tif"]),
        (["."], ["a.PDF", "b.pdf", "odd[1].pdf", "scans/1.jpg", "scans/2.png", "scans/deep/4.tif"]),
        (["*.pdf"], ["b.pdf", "odd[1].pdf"]),
        (["odd[1].pdf"], ["odd[1].pdf"]),
        (["**/*.png"], ["scans/2.png"]),
        (["sca*"], ["scans/1.jpg", "scans/2.png", "scans/deep/4.tif"]),
        (["out/a/pages/0001.jpg"], ["out/a/pages/0001.jpg"]),
        (["none.pdf", "b.pdf"], ["SourceNotFound none.pdf", "b.pdf"]),
        (["*.docx"], ["SourceNotFound *.docx"]),
        (["out"], ["SourceNotFound out"]),
        (["a\0b"], ["SourceNotFound a\0b"]),
        ([], []),
    ],
)
def test_what_is_found(inputs: list[str], expected: list[str]) -> None:
    assert names(*inputs) == expected


def test_a_ring_of_links_ends(desk: Path) -> None:
    (desk / "scans" / "loop").symlink_to(desk / "scans")
    assert names("scans") == ["scans/1.jpg", "scans/2.png", "scans/deep/4.tif"]


def test_a_dead_link_is_named_for_opening_to_refuse(desk: Path) -> None:
    (desk / "dead.pdf").symlink_to(desk / "gone.pdf")
    assert names("dead.pdf") == ["dead.pdf"]
