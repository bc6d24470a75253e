"""Compiled layers say the same, and run as they were written afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import octavo  # noqa: E402
from octavo.engine import compile as compiling  # noqa: E402
from octavo.engine.compile import compile_layers, undo  # noqa: E402
from octavo.errors import ConfigError, MissingDependency  # noqa: E402
from octavo.requests import Request  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from benchmarks.checkpoints import make

    with octavo.load(str(make("text", tmp_path_factory.mktemp("text"))), device="cpu") as made:
        yield made


@pytest.fixture
def layers(model: Any) -> Iterator[Any]:
    found = model.family.layers(model.module, "language")
    yield found
    undo(found)
    torch.compiler.reset()


def answers(model: Any) -> dict[str, tuple[int, ...]]:
    asked = [Request.of(f"What is {n}?", max_new_tokens=5 + n, id=str(n)) for n in range(3)]
    return {done.request_id: done.check().tokens for done in model.generate(asked)}


def test_compiled_layers_say_the_same_with_one_graph_for_many_shapes(
    model: Any, layers: Any
) -> None:
    from torch._dynamo.utils import counters

    eager = answers(model)
    counters.clear()
    assert compile_layers(layers, backend="eager") == len(layers)
    assert answers(model) == eager
    assert 1 <= counters["stats"]["unique_graphs"] <= 2
    assert not counters["graph_break"]
    undo(layers)
    counters.clear()
    assert answers(model) == eager
    assert not counters["stats"]


def test_streamed_layers_are_left_alone(layers: Any) -> None:
    handles = [layer.register_forward_pre_hook(lambda *_: None) for layer in layers[:-1]]
    assert compile_layers(layers, backend="eager") == 1
    handles.append(layers[-1].mlp.register_forward_hook(lambda *_: None))
    with pytest.raises(ConfigError, match="no layer"):
        compile_layers(layers, backend="eager")
    for handle in handles:
        handle.remove()


def test_without_a_compiler_it_says_what_to_install(
    layers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda _: None)
    with pytest.raises(MissingDependency, match=r"g\+\+"):
        compile_layers(layers)
    assert all(layer.mlp._compiled_call_impl is None for layer in layers)
