"""How a command ends badly: one line that says what, where and what to do next."""

from __future__ import annotations

import difflib
import json
import sys
import traceback
from types import TracebackType
from typing import Any

import typer

from octavo.errors import OctavoError
from octavo.types import Failure

#: Exit codes: all documents whole, some pages or documents missing, nothing was read, Ctrl-C.
OK, PARTIAL, NOTHING, INTERRUPTED = 0, 1, 2, 130

# Typer carries its own copy of click in some versions and uses the library in others; the base
# of what it exports is the "wrong usage" error of whichever it is.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def printable(text: object) -> str:
    """``text`` on one line, control characters shown as escapes: names come from strangers."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def line(what: str, where: str | None = None, next_step: str | None = None) -> str:
    """``error: what, where; next step``."""
    text = f"error: {what.rstrip('.')}"
    if where and where not in what:
        text += f", {where}"
    if next_step:
        text += f"; {next_step}"
    return printable(text)


def error_line(error: BaseException) -> str:
    """The line for any exception; one that Octavo did not raise on purpose names its class."""
    if isinstance(error, OctavoError):
        return line(error.what, error.where, error.next_step)
    if isinstance(error, UsageError):
        return _usage_line(error)
    if isinstance(error, OSError) and error.strerror:
        return line(
            error.strerror, str(error.filename or "") or None, "check the path and the disk"
        )
    return line(
        f"unexpected {type(error).__name__}: {error}",
        next_step="--verbose shows where; please report it",
    )


def failure_line(failure: Failure, where: str) -> str:
    """The line for a page or document that failed while the run went on."""
    return line(failure.what, where, failure.next_step)


def error_event(error: BaseException) -> dict[str, Any]:
    """The same facts for ``--json``."""
    facts: dict[str, Any] = {"event": "error", "error": type(error).__name__}
    if isinstance(error, OctavoError):
        return facts | {"what": error.what, "where": error.where, "next_step": error.next_step}
    return facts | {"what": str(error), "where": None, "next_step": None}


def json_line(facts: Any) -> str:
    """JSON as it is read best; escaped where a file's name is no Unicode and cannot be printed."""
    text = json.dumps(facts, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(facts)
    return text


class Reported:
    """A context in which every exception ends the process with one line on stderr.

    With ``--verbose`` among ``arguments`` the traceback comes first; with ``--json`` the same
    facts go to stdout as an object.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._verbose = not {"--verbose", "-v"}.isdisjoint(arguments)
        self._json = "--json" in arguments

    def __enter__(self) -> Reported:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception):
            return
        if self._verbose and not isinstance(error, UsageError):
            traceback.print_exception(error)
        if self._json:
            print(json_line(error_event(error)), flush=True)
        print(error_line(error), file=sys.stderr, flush=True)
        sys.exit(NOTHING)


def _usage_line(error: Exception) -> str:
    """Click's sentence, with the nearest option or the command that lists them."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "octavo"
    next_step = f"see {command} --help"
    wanted, known = getattr(error, "option_name", ""), getattr(error, "possibilities", None)
    if known:
        message = str(error)
        next_step = f"did you mean {difflib.get_close_matches(wanted, known, 1, 0)[0]}?"
    else:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        message, found, rest = message.partition(". Did you mean ")
        next_step = f"did you mean {rest}" if found else next_step
    return line(message[:1].lower() + message[1:], next_step=next_step)
