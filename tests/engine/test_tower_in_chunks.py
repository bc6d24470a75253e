"""What takes rows in chunks is called once: hooks that bring its weights run once."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from octavo.engine.tower_chunks import in_chunks  # noqa: E402


@pytest.mark.parametrize("chunk", [1, 4, 7, 100])
def test_a_module_is_called_once_whatever_the_chunk(chunk: int) -> None:
    module = torch.nn.Linear(6, 3)
    calls: list[int] = []
    module.register_forward_pre_hook(lambda _module, inputs: calls.append(len(inputs[0])))
    rows_px = torch.randn(21, 6)
    made = in_chunks(module, rows_px, chunk)
    assert calls == [21]
    assert torch.allclose(made, torch.nn.functional.linear(rows_px, module.weight, module.bias))
    assert "forward" not in vars(module)


def test_a_module_that_fails_is_left_as_it_was() -> None:
    module = torch.nn.Linear(6, 3)
    with pytest.raises(RuntimeError):
        in_chunks(module, torch.randn(5, 4), 2)
    assert "forward" not in vars(module)
