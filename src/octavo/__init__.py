"""Documents, images, audio and video as structured reports, in the memory you have.

``octavo.parse("paper.pdf")`` gives a ``Report``; ``octavo.Converter`` keeps the engines for many
documents; ``octavo.convert`` writes many reports to disk. ``octavo.load("whisper-base")`` gives a
model within a budget of memory.
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
    from octavo.requests import Completion, Part, Request, Sampling
    from octavo.runtime import load

__all__ = [
    "Completion",
    "Converter",
    "OctavoError",
    "Part",
    "PipelineConfig",
    "Report",
    "Request",
    "Sampling",
    "__version__",
    "convert",
    "load",
    "parse",
]

_HOMES = {
    "Completion": "octavo.requests",
    "Converter": "octavo.pipeline.convert",
    "OctavoError": "octavo.errors",
    "Part": "octavo.requests",
    "PipelineConfig": "octavo.pipeline.config",
    "Report": "octavo.document",
    "Request": "octavo.requests",
    "Sampling": "octavo.requests",
    "convert": "octavo.pipeline.convert",
    "load": "octavo.runtime",
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
