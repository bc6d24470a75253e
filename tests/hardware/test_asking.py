"""Libraries asked in another process: healthy, broken, deadly, slow and talkative ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from octavo.hardware import asking
from octavo.hardware.asking import Answer, ask, installed


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which the other process imports modules."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_a_version_is_told(library: Path) -> None:
    (library / "drawn.py").write_text("__version__ = '1.2'")
    assert ask(["drawn"]) == {"drawn": Answer({"version": "1.2"})}


def test_one_that_ends_its_process_costs_only_its_own_answer(library: Path) -> None:
    (library / "before.py").write_text("")
    (library / "deadly.py").write_text("import os; os._exit(9)")
    (library / "after.py").write_text("__version__ = '2'")
    answers = ask(["before", "deadly", "after"])
    assert answers["before"].found == {"version": None}
    assert answers["deadly"] == Answer(None, "ends the process that loads it (9)")
    assert answers["after"].found == {"version": "2"}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ImportError('libGL.so.1')", "libGL.so.1"),
        ("raise RuntimeError('operator nms does not exist')", "operator nms does not exist"),
        ("raise OSError()", "OSError"),
        ("import octavo_is_not_here", "No module named 'octavo_is_not_here'"),
    ],
)
def test_one_that_does_not_load_says_why(library: Path, body: str, error: str) -> None:
    (library / "broken.py").write_text(body)
    assert ask(["broken"])["broken"] == Answer(None, error)


def test_one_that_never_ends_is_given_up(library: Path) -> None:
    (library / "first.py").write_text("")
    (library / "slow.py").write_text("import threading; threading.Event().wait()")
    answers = ask(["first", "slow"], timeout_s=3.0)
    assert answers["first"].found is not None
    assert answers["slow"] == Answer(None, "does not load within 3 s")


def test_greetings_are_not_answers(library: Path) -> None:
    (library / "loud.py").write_text("print('{\"name\": \"loud\"}'); print('octavo hello')")
    assert ask(["loud"])["loud"] == Answer({"version": None})


def test_modules_in_the_working_folder_and_beside_the_program_hide_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "psutil.py").write_text("raise SystemExit(3)")
    assert ask(["psutil"])["psutil"].found is not None
    # Octavo's own probe.py lies beside the program that asks.
    assert ask(["probe"])["probe"].found is None


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking.sys, "executable", "/nowhere/python")
    assert (ask(["json"])["json"].error or "").startswith("cannot be tried")


def test_installed_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "octavo_drawn_module.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed("octavo_drawn_module")
    assert not installed("octavo_is_not_here")
    assert "octavo_drawn_module" not in sys.modules
