"""How far the loading of a component is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Bytes read from disk for one component.

    Attributes:
        component: its name.
        done_bytes, total_bytes: read and cast, and all there is to read.
        finished: its parameters are in place; it can be used.
    """

    component: str
    done_bytes: int
    total_bytes: int
    finished: bool = False
