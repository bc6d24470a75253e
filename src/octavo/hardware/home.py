"""The folder where Octavo keeps what it downloads and measures."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

HOME: Final = "OCTAVO_HOME"


def octavo_home(environ: Mapping[str, str] | None = None) -> Path:
    """``$OCTAVO_HOME``, or ``octavo`` in the user's cache folder; not made here.

    Args:
        environ: the environment, ``os.environ`` by default.
    """
    found = os.environ if environ is None else environ
    if home := found.get(HOME):
        return Path(home).expanduser()
    cache = found.get("XDG_CACHE_HOME")
    if not cache and sys.platform == "win32":
        cache = found.get("LOCALAPPDATA")
    return (Path(cache) if cache else Path.home() / ".cache") / "octavo"
