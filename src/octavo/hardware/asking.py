"""Asks libraries that may be broken, in a process of their own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_TIMEOUT_S: Final = 90.0
_MARK: Final = "octavo {"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a library said, or in ``error`` why it does not load."""

    found: Mapping[str, Any] | None
    error: str | None = None


Answers = Mapping[str, Answer]


def installed(name: str) -> bool:
    """Whether a top-level module can be found; nothing is imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # a module put into sys.modules without a spec
        return name in sys.modules


def ask(names: Sequence[str], *, timeout_s: float = _TIMEOUT_S) -> dict[str, Answer]:
    """Has each module imported and asked, in the order given.

    A library that ends the process costs only its own answer: the rest are asked anew.

    Args:
        names: modules; :mod:`octavo.hardware.answers` says what is asked of each.
        timeout_s: for all of them together, and again after each that ends its process.
    """
    answers: dict[str, Answer] = {}
    left = list(names)
    while left:
        replies, why = _run(left, timeout_s)
        for reply in replies:
            if "found" in reply or "error" in reply:
                answers[reply["name"]] = Answer(reply.get("found"), reply.get("error"))
        left = [name for name in left if name not in answers]
        if left:
            # The name alone was printed just before the attempt that ended the process.
            answers[left.pop(0)] = Answer(None, why)
    return answers


def _run(names: Sequence[str], timeout_s: float) -> tuple[list[dict[str, Any]], str]:
    """Replies, and why there are no more."""
    program = Path(__file__).with_name("answers.py")
    # -P: the program's own folder must not hide modules, nor the folder that the user is in.
    command = [sys.executable, "-P", str(program), *names]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        text = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
        return _replies(text), f"does not load within {timeout_s:g} s"
    except OSError as error:
        return [], f"cannot be tried: {error}"
    return _replies(done.stdout), f"ends the process that loads it ({done.returncode})"


def _replies(text: str) -> list[dict[str, Any]]:
    return [
        json.loads(line.removeprefix("octavo "))
        for line in text.splitlines()
        if line.startswith(_MARK) and line.endswith("}")
    ]
