"""Vision towers, run for a request's pictures one by one or a few at a time.

A picture's features do not depend on the pictures beside it, so how they are grouped changes
nothing but rounding: products of matrices with another number of rows may differ in the last bit.
The features of one group are equal bit by bit each time.

Shape letters: p patches, l taps (what goes in place of the prompt's tokens, then deepstack
layers), t tokens, d width of the decoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from octavo.engine.tower_budget import TowerBudget, budget_for
from octavo.errors import UnsupportedFormat

if TYPE_CHECKING:
    from octavo.models.family import Family

__all__ = ["Medium", "Tower", "TowerBudget", "batches", "budget_for", "run", "tower_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Medium:
    """One picture, film or clip of sound of a prepared request.

    Attributes:
        kind: ``image``, ``video`` or ``audio``.
        pixels: its share of the processor's tensor, on the CPU; a view.
        grid: numbers that the tower needs beside the pixels: frames and patches high and wide, or
            height and width of the picture; frames of sound that are no padding; empty where its
            size is fixed.
        patches: rows through the tower.
        tokens: of the decoder that its features take the place of.
    """

    kind: str
    pixels: torch.Tensor
    grid: tuple[int, ...]
    patches: int
    tokens: int


class Tower(ABC):
    """How a family's tower is asked for the features of some media, and how they go on.

    Class attributes:
        pixels: kind of medium → the name of its tensor among the inputs.
        grids: kind of medium → the name of its grid's tensor, where there is one.
        handed: kinds whose features no library's ``forward`` takes as they are.
    """

    pixels: ClassVar[Mapping[str, str]] = {"image": "pixel_values"}
    grids: ClassVar[Mapping[str, str]] = {}
    handed: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def media(self, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[Medium]:
        """The media of a prepared request: pictures in order, then films in order."""

    @abstractmethod
    def see(self, module: nn.Module, media: Sequence[Medium]) -> list[torch.Tensor]:
        """Features (l, t, d) of media of one kind, each a tensor of its own."""

    def see_in_chunks(
        self, module: nn.Module, media: Sequence[Medium], chunk: int
    ) -> list[torch.Tensor]:
        """The same, attention and MLP over ``chunk`` patches at once where the family knows how."""
        del chunk
        return self.see(module, media)

    @abstractmethod
    def outputs(self, module: nn.Module, features_ltd: Sequence[torch.Tensor]) -> Any:
        """Features of all media of a kind, in order, as ``forward`` of the module takes them."""

    @abstractmethod
    def placeholders(self, module: nn.Module) -> Mapping[str, int]:
        """Kind of medium → the id in the prompt that stands for one of its tokens."""

    def places(
        self, module: nn.Module, ids_1t: torch.Tensor, media: Sequence[Medium]
    ) -> list[tuple[int, int]]:
        """Where each medium's first token is in the prompt, and where the one after its last.

        What stands between a film's frames (times, in words) lies inside.
        """
        found: dict[str, list[int]] = {
            kind: (ids_1t[0] == token).nonzero().flatten().tolist()
            for kind, token in self.placeholders(module).items()
        }
        done = dict.fromkeys(found, 0)
        places = []
        for medium in media:
            start = done[medium.kind]
            done[medium.kind] = start + medium.tokens
            mine = found[medium.kind][start : start + medium.tokens]
            places.append((mine[0], mine[-1] + 1))
        return places


def tower_of(family: Family) -> Tower:
    """The tower of a family.

    Raises:
        UnsupportedFormat: its media go through no tower that is known here.
    """
    from octavo.engine.tower_families import TOWERS

    if family.name not in TOWERS:
        raise UnsupportedFormat(
            f"features of {family.name} models are not kept apart from answers",
            next_step=f"families that can: {', '.join(sorted(TOWERS))}",
        )
    return TOWERS[family.name]()


def batches(media: Sequence[Medium], budget: TowerBudget) -> Iterator[list[Medium]]:
    """Media that follow each other, of one kind and within the budget, but one at least."""
    batch: list[Medium] = []
    for medium in media:
        same = not batch or batch[0].kind == medium.kind
        together = sum(one.patches for one in batch) + medium.patches
        if batch and not (same and together <= budget.patches):
            yield batch
            batch = []
        batch.append(medium)
    if batch:
        yield batch


def run(
    tower: Tower, module: nn.Module, media: Sequence[Medium], budget: TowerBudget
) -> Iterator[list[torch.Tensor]]:
    """Features (l, t, d) of each medium, batch by batch: one's activations are gone before the
    next one's."""
    for batch in batches(media, budget):
        with torch.inference_mode():
            if budget.chunk is None:
                made = tower.see(module, batch)
            else:
                made = tower.see_in_chunks(module, batch, budget.chunk)
        yield made
        del made
