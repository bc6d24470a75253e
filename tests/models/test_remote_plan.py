"""A model on a hub is described, and so planned, from configuration and headers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from octavo.hardware.plan import Workload, plan
from octavo.models.checkpoint import Checkpoint
from octavo.models.hub import resolve
from octavo.models.registry import family_of
from tests.models.hub_server import Hub, serving

FAMILIES = (
    "qwen3-vl", "qwen2.5-vl", "dots.ocr", "gemma3n", "phi4-multimodal", "llava", "llava-next",
    "blip", "blip-2", "clip", "x-clip", "text", "sentence",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_description_without_a_download(
    family: str,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    folder = tiny(family)
    local = Checkpoint.at(folder)
    wanted = family_of(local).describe(local)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    name = f"owner/{family}"
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with serving(Hub(files={name: files}, large={"model.safetensors"})) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        remote = resolve(name, headers_only=True)
        found = family_of(remote).describe(remote)
        asked = [wanted_range for file, wanted_range in hub.asked if file == "model.safetensors"]
    assert found.components == wanted.components
    assert (found.text, found.vision, found.audio) == (wanted.text, wanted.vision, wanted.audio)
    assert asked
    assert all(one is not None for one in asked), "weights were asked for as a whole"
    assert list(tmp_path.glob("models/*")) == []
    made = plan(found, Workload(prompt=8, new=4), budget=1 << 40)
    assert made.fits
