"""Documents, images, audio and video as structured reports, in the memory you have.

``octavo.parse("paper.pdf")`` gives a ``Report``; ``octavo.Converter`` keeps the engines for many
documents; ``octavo.convert`` writes many reports to disk.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from octavo._version import __version__

if TYPE_CHECKING:
    from octavo.document import Report
    from octavo.errors import OctavoError
    from octavo.pipeline.config import PipelineConfig
    from octavo.pipeline.convert import Converter, convert, parse

__all__ = [
    "Converter",
    "OctavoError",
    "PipelineConfig",
    "Report",
    "__version__",
    "convert",
    "parse",
]

_HOMES = {
    "Converter": "octavo.pipeline.convert",
    "OctavoError": "octavo.errors",
    "PipelineConfig": "octavo.pipeline.config",
    "Report": "octavo.document",
    "convert": "octavo.pipeline.convert",
    "parse": "octavo.pipeline.convert",
}


def __getattr__(name: str) -> Any:
    """Loads what is asked for, so that ``import octavo`` costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
