"""From a prepared request to features, out of the cache where they are, and on into the model.

Shape letters: l taps, t tokens, d width of the decoder.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from octavo.engine.features import FeatureCache, FeatureKey
from octavo.engine.features_mark import ModelMark
from octavo.engine.tower import Medium, Tower, TowerBudget, run, tower_of
from octavo.engine.tower_families import TAKEN_BY_KIND
from octavo.models.family import Family, Generated, Guard, Prepared, Processor
from octavo.requests import Sampling

if TYPE_CHECKING:
    import torch
    from torch import nn

_WHOLE: Final = TowerBudget()
#: The argument of dots.ocr's ``forward`` that takes features.
_TAKEN: Final = "image_features"


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The media of one request and what the tower made of them.

    Attributes:
        media, keys, features: one of each a medium, in order; features are (l, t, d), on the
            device, shared with the cache and not to be changed. Equal media share theirs.
        hits: how many media were found in the cache.
    """

    media: tuple[Medium, ...]
    keys: tuple[FeatureKey, ...]
    features: tuple[torch.Tensor, ...]
    hits: int = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(medium.kind for medium in self.media))

    def of(self, kind: str) -> list[torch.Tensor]:
        """Features of media of one kind, in order."""
        both = zip(self.media, self.features, strict=True)
        return [features_ltd for medium, features_ltd in both if medium.kind == kind]


def see(
    tower: Tower,
    module: nn.Module,
    prepared: Prepared,
    cache: FeatureCache,
    mark: ModelMark,
    budget: TowerBudget = _WHOLE,
) -> Seen:
    """Features of a request's media. The tower runs for those alone that the cache has not.

    Args:
        prepared: with inputs as its processor made them, on the CPU.
        mark: of the model that ``module`` is.
        budget: of the passes through the tower.
    """
    media = tower.media(module, prepared.inputs)
    keys = [FeatureKey.of(medium, mark) for medium in media]
    cache.prefetch(keys[1:])  # while the first is read
    have: dict[FeatureKey, torch.Tensor] = {}
    missing: dict[FeatureKey, Medium] = {}
    hits = 0
    for key, medium in zip(keys, media, strict=True):
        if key in missing or key in have:
            continue
        found = cache.get(key)
        if found is None:
            missing[key] = medium
        else:
            have[key] = found
            hits += keys.count(key)
    have |= _made(tower, module, missing, cache, budget)
    return Seen(tuple(media), tuple(keys), tuple(have[key] for key in keys), hits)


def _made(
    tower: Tower,
    module: nn.Module,
    missing: Mapping[FeatureKey, Medium],
    cache: FeatureCache,
    budget: TowerBudget,
) -> dict[FeatureKey, torch.Tensor]:
    """Runs the tower and keeps what it makes."""
    made: dict[FeatureKey, torch.Tensor] = {}
    left = iter(missing.items())
    start = time.perf_counter()
    for batch in run(tower, module, list(missing.values()), budget):
        mine = [(*next(left), features_ltd) for features_ltd in batch]
        seconds = time.perf_counter() - start
        patches = sum(medium.patches for _, medium, _ in mine)
        for key, medium, features_ltd in mine:
            cache.put(key, features_ltd, seconds=seconds * medium.patches / max(patches, 1))
            made[key] = features_ltd
        start = time.perf_counter()
    return made


@contextmanager
def fed(tower: Tower, module: nn.Module, prepared: Prepared, seen: Seen) -> Iterator[Prepared]:
    """The request with features in place of pixels, for ``forward`` and ``generate`` meanwhile.

    Where ``forward`` takes features, they are among the inputs. Where it does not (transformers
    5.17), the module hands them out itself in place of running its tower; so one
    request at a time.
    """
    if not seen.media:
        yield prepared
        return
    outputs = {kind: tower.outputs(module, seen.of(kind)) for kind in seen.kinds}
    takes = inspect.signature(module.forward).parameters
    without: dict[str, Any] = {
        name: value for name, value in prepared.inputs.items() if name not in tower.pixels.values()
    }
    if _TAKEN in takes:
        yield replace(prepared, inputs=without | {_TAKEN: outputs["image"]})
        return
    taken = {
        kind: output
        for kind, output in outputs.items()
        if TAKEN_BY_KIND in takes and kind not in tower.handed
    }
    handed = {kind: output for kind, output in outputs.items() if kind not in taken}
    # Pixels say that there are pictures; one row says it as well as all.
    rows: dict[str, Any] = {
        tower.pixels[kind]: prepared.inputs[tower.pixels[kind]][:1] for kind in handed
    }
    if taken:
        rows[TAKEN_BY_KIND] = taken
    with _handing_out(module, handed):
        yield replace(prepared, inputs=without | rows)


@contextmanager
def _handing_out(module: nn.Module, outputs: Mapping[str, Any]) -> Iterator[None]:
    """Has the model's ``get_image_features`` and the like give ``outputs``."""
    model: Any = module.get_submodule("model")
    names = {f"get_{kind}_features": output for kind, output in outputs.items()}
    for name, output in names.items():
        # The names of its arguments are looked at by ``generate``.
        known = functools.wraps(getattr(model, name))
        setattr(model, name, known(functools.partial(_given, output)))
    try:
        yield
    finally:
        for name in names:
            delattr(model, name)


def _given(output: Any, *_args: Any, **_kwargs: Any) -> Any:
    return output


def answer_with_features(
    family: Family,
    module: nn.Module,
    processor: Processor,
    prepared: Prepared,
    cache: FeatureCache,
    mark: ModelMark,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    guard: Guard,
    budget: TowerBudget = _WHOLE,
) -> Generated:
    """As ``family.generate``, with the same tokens; the tower runs for new media alone.

    Raises:
        UnsupportedFormat: the family's media go through no tower that is known here.
    """
    tower = tower_of(family)
    seen = see(tower, module, prepared, cache, mark, budget)
    with fed(tower, module, prepared, seen) as given:
        return family.generate(
            module,
            processor,
            given,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            guard=guard,
        )
