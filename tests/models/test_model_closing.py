"""A model that is closed under the hands of whoever asks it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import octavo
from octavo.engine import intake
from octavo.requests import Request


def test_a_model_that_is_closed_while_a_request_is_prepared(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is gone by then: the request is told that the model was closed."""
    preparing, closed = threading.Event(), threading.Event()

    def take(*_args: Any) -> Any:
        preparing.set()
        assert closed.wait(60)
        raise AttributeError("'NoneType' object has no attribute 'config'")

    monkeypatch.setattr(intake.Intake, "take", take)
    model = octavo.load(str(tiny("text")))
    done: list[Any] = []
    asks = threading.Thread(target=lambda: done.extend(model.generate([Request.of("hi")])))
    asks.start()
    assert preparing.wait(60)
    model.close()
    closed.set()
    asks.join(60)
    assert [one.failure.error for one in done] == ["ReleasedError"]
