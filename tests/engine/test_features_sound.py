"""Features of sound: heard once, found again by content, and the same logits with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from octavo.engine.features import FeatureCache  # noqa: E402
from octavo.engine.features_answer import fed, see  # noqa: E402
from octavo.requests import Part, Request  # noqa: E402
from tests.engine.test_features import PICTURES, Opened, cache, opened  # noqa: E402, F401
from tests.models.conftest import held, tiny  # noqa: E402, F401


def test_sound_is_heard_once(
    opened: Callable[[str], Opened],  # noqa: F811
    cache: FeatureCache,  # noqa: F811
    held: Any,  # noqa: F811
) -> None:
    """Clips of other lengths, so that silence stands behind the shorter one; with a picture."""
    model = opened("gemma3n")
    noise = np.random.default_rng(0).standard_normal((2, 16_000)).astype(np.float32)
    clips = [Part.audio((noise[0], 16_000)), Part.audio((noise[1, :7000], 16_000))]
    heard: list[int] = []
    hook = model.module.model.audio_tower.register_forward_pre_hook(
        lambda _part, given: heard.append(len(given[0]))
    )
    for parts in ((*clips,), (Part.image(PICTURES[0]), *clips)):
        prepared = model.processor.prepare(Request.of(*parts, "what is said"), held)
        with torch.inference_mode():
            wanted = model.module(**prepared.inputs).logits
        heard.clear()
        for _ in range(2):
            seen = see(model.tower, model.module, prepared, cache, model.mark)
            with fed(model.tower, model.module, prepared, seen) as given, torch.inference_mode():
                found = model.module(**given.inputs).logits
            assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()
        assert seen.hits == len(parts)
        assert heard == ([1, 1] if len(parts) == 2 else [])  # the same clips, whatever is beside
    made = model.cached(prepared, cache)
    assert heard == []
    assert made == model.plain(prepared)
    hook.remove()
    other = noise[1, :7000].copy()
    other[3000] *= -1
    request = Request.of(clips[0], Part.audio((other, 16_000)), "what is said")
    seen = see(model.tower, model.module, model.processor.prepare(request, held), cache, model.mark)
    assert seen.hits == 1
    assert not torch.equal(seen.features[0], seen.features[1])
