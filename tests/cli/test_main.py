"""The program as a whole: help, version, and what it loads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
from typer.testing import CliRunner

from octavo import __version__
from octavo.cli.main import app
from octavo.pipeline.config import PipelineConfig

from .conftest import Program


def test_version(program: Program) -> None:
    ended = program("--version")
    assert (ended.code, ended.out) == (0, f"octavo {__version__}\n")


def test_python_dash_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "octavo", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"octavo {__version__}\n"


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_the_commands_and_fits_a_terminal(
    arguments: tuple[str, ...], program: Program
) -> None:
    ended = program(*arguments)
    assert ended.code == 0
    assert {"parse", "doctor", "--version"} <= set(ended.out.split())
    assert len(ended.out.splitlines()) <= 28  # a line for each command


def test_help_of_parse_shows_every_setting() -> None:
    text = CliRunner().invoke(app, ["parse", "--help"], env={"COLUMNS": "100"}).output
    for field in fields(PipelineConfig):
        assert f"--{field.name.replace('_', '-')}" in text


def test_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, octavo.cli.main; "
        "heavy = {'numpy', 'pypdfium2', 'onnxruntime', 'cv2', 'docling_core', 'PIL', 'torch'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
