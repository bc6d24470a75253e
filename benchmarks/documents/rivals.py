"""Octavo and its rivals behind one call, each in a process of its own.

A rival that is not installed here runs with another interpreter, named by
``BENCH_PYTHON`` or ``--rivals-python``; ``pip install octavo[bench]`` in a fresh
environment makes one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.documents import worker

TOOLS = tuple(worker.TOOLS)
#: Seconds a tool may take for one answer.
PATIENCE = 600.0
_LOCAL = ("octavo", "octavo-fast")


@dataclass(frozen=True, slots=True)
class Answer:
    """``error`` is empty where the tool returned Markdown; ``seconds`` is the tool's own time."""

    markdown: str = ""
    seconds: float = 0.0
    error: str = ""


class ToolUnavailable(RuntimeError):
    """The tool cannot be started here."""


class Tool(AbstractContextManager["Tool"]):
    """A running tool. Starts on entry, so that its start is not part of a page's time."""

    def __init__(self, name: str, python: str | None = None) -> None:
        self.name = name
        self.version = ""
        self._python = sys.executable if name in _LOCAL else interpreter(name, python)
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ToolUnavailable(f"{self.name} is not running")
        return self._process.pid

    def __enter__(self) -> Tool:
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [self._python, str(Path(worker.__file__)), self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,  # nothing may be left to flush into the pipe of a dead tool
            start_new_session=True,
        )
        ready = self._read(PATIENCE)
        if "ready" not in ready:
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip().splitlines()
            self.__exit__(None, None, None)
            raise ToolUnavailable(f"{self.name} does not start: {said[-1] if said else ready}")
        self.version = str(ready["version"])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout:
            process.stdout.close()
        self._log.close()

    def convert(self, path: Path) -> Answer:
        """Markdown of one file. A tool that dies or is silent too long has failed on the file."""
        if self._process is None or self._process.stdin is None:
            raise ToolUnavailable(f"{self.name} is not running")
        try:
            self._process.stdin.write(json.dumps({"path": str(path)}).encode() + b"\n")
        except BrokenPipeError:
            return Answer(error="the tool died")
        answer = self._read(PATIENCE)
        if "markdown" in answer:
            return Answer(str(answer["markdown"]), float(answer["seconds"]))
        return Answer(error=str(answer.get("error", "no answer")))

    def _read(self, seconds: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdout is None:
            return {"error": "the tool died"}
        descriptor = process.stdout.fileno()
        while b"\n" not in self._buffer:
            if not select.select([descriptor], [], [], seconds)[0]:
                os.killpg(process.pid, signal.SIGKILL)
                return {"error": f"no answer in {seconds:.0f} s"}
            chunk = os.read(descriptor, 1 << 20)
            if not chunk:
                return {"error": "the tool died"}
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        loaded: dict[str, Any] = json.loads(line)
        return loaded


def interpreter(name: str, python: str | None = None) -> str:
    """The Python that runs a rival: the one named, or this one where it has the package."""
    named = python or os.environ.get("BENCH_PYTHON")
    if named:
        return named
    if importlib.util.find_spec(worker.TOOLS[name][0]):
        return sys.executable
    raise ToolUnavailable(
        f"{name} is not installed here; make an environment with `pip install octavo[bench]` "
        "and name its interpreter with --rivals-python"
    )


class Cache:
    """Rivals' answers by the bytes of the file and the version of the tool.

    Octavo is never cached: it is what changes.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def convert(self, tool: Tool, path: Path) -> Answer:
        place = self._place(tool, path)
        if place and place.exists():
            return Answer(**json.loads(place.read_text(encoding="utf-8")))
        answer = tool.convert(path)
        if place and not answer.error:
            place.parent.mkdir(parents=True, exist_ok=True)
            held = {"markdown": answer.markdown, "seconds": answer.seconds}
            part = place.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps(held), encoding="utf-8")
            part.replace(place)
        return answer

    def _place(self, tool: Tool, path: Path) -> Path | None:
        if self._folder is None or tool.name in _LOCAL:
            return None
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:24]
        return self._folder / f"{tool.name}-{tool.version}" / f"{digest}.json"
