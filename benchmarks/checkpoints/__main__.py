"""``python -m benchmarks.checkpoints FAMILY SHAPE FOLDER`` writes one; without arguments, lists."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.checkpoints import MAKERS, make, maker


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoints", description=__doc__)
    parser.add_argument("family", nargs="?", choices=sorted(MAKERS))
    parser.add_argument("shape", nargs="?", default="tiny")
    parser.add_argument("folder", nargs="?", type=Path)
    chosen = parser.parse_args()
    if chosen.folder is None:
        for family in sorted(MAKERS) if chosen.family is None else [chosen.family]:
            for shape, words in maker(family).SHAPES.items():
                print(f"{family:16} {shape:12} {words}")
        return
    print(make(chosen.family, chosen.folder, chosen.shape))


if __name__ == "__main__":
    main()
