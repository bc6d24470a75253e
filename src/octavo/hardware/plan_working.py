"""Intermediate results at the highest place of a computation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Working:
    """Bytes that are alive at once, and where in the computation that is."""

    name: str
    nbytes: int


def highest(*places: Working) -> Working:
    """The place with most bytes; the first of equals."""
    return max(places, key=lambda place: place.nbytes)
