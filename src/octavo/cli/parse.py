"""``octavo parse``: documents in, reports out."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from octavo.cli._errors import INTERRUPTED
from octavo.cli._interrupt import ends_within
from octavo.errors import ConfigError

#: Seconds that an interrupted run has to end by itself.
GRACE_S = 1.5

READING, WRITING, RUNNING = "Reading", "Writing", "Running"


_WHEN = "auto, always or never"


def _option(panel: str, text: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel)


def _switch(panel: str, text: str, name: str) -> Any:
    return _option(panel, text, f"--{name}/--no-{name}")


def parse(
    *,
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, patterns ('scans/*.pdf').")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the reports go.")
    ] = Path("out"),
    mode: Annotated[
        str | None, _option(READING, "quality, fast, small-memory.", metavar="MODE")
    ] = None,
    pages: Annotated[str | None, _option(READING, "Such as 1-20,33 or 5-.", metavar="LIST")] = None,
    password: Annotated[str | None, _option(READING, "Others can see it.", metavar="TEXT")] = None,
    password_file: Annotated[
        Path | None,
        _option(READING, "First line; - is stdin.", metavar="FILE"),
    ] = None,
    ocr: Annotated[str | None, _option(READING, f"{_WHEN}.", metavar="WHEN")] = None,
    layout_model: Annotated[
        bool | None, _switch(READING, "Ask the layout model.", "layout-model")
    ] = None,
    pdf_dpi: Annotated[int | None, _option(READING, "Pixels an inch for PDF.", metavar="N")] = None,
    max_long_edge_px: Annotated[
        int | None, _option(READING, "Cap of a page's long edge.", metavar="N")
    ] = None,
    batch_size: Annotated[int | None, _option(READING, "Pages at a time.", metavar="N")] = None,
    page_timeout_s: Annotated[
        float | None, _option(READING, "When a page is given up.", metavar="SEC")
    ] = None,
    worker_memory_mb: Annotated[
        int | None, _option(READING, "Memory a page may need.", metavar="MIB")
    ] = None,
    padding: Annotated[int | None, _option(WRITING, "Around a crop.", metavar="PX")] = None,
    crop_upscale: Annotated[
        float | None, _option(WRITING, "Finer than the page.", metavar="X")
    ] = None,
    save_pages: Annotated[bool | None, _switch(WRITING, "Write pages/.", "save-pages")] = None,
    save_crops: Annotated[bool | None, _switch(WRITING, "Write crops/.", "save-crops")] = None,
    save_manifest: Annotated[
        bool | None, _switch(WRITING, "List the crops as JSON.", "save-manifest")
    ] = None,
    manifest_filename: Annotated[
        str | None, _option(WRITING, "Name of that file.", metavar="NAME")
    ] = None,
    summaries: Annotated[
        bool | None, _switch(WRITING, "Of pages and document.", "summaries")
    ] = None,
    html: Annotated[bool | None, _switch(WRITING, "Write report.html.", "html")] = None,
    config: Annotated[
        Path | None, _option(RUNNING, "Settings, in place of octavo.toml.", metavar="FILE")
    ] = None,
    json_lines: Annotated[bool, _option(RUNNING, "One JSON line an event.", "--json")] = False,
    quiet: Annotated[bool, _option(RUNNING, "Only errors.", "--quiet", "-q")] = False,
    verbose: Annotated[
        bool, _option(RUNNING, "Every page, and tracebacks.", "--verbose", "-v")
    ] = False,
) -> None:
    """Read documents and write a report of each: JSON, Markdown and HTML.

    Settings also come from [bold]octavo.toml[/bold] and OCTAVO_ variables; options win.

    A run that was stopped goes on with the same command.

    Exit code: 0 all whole, 1 some missing, 2 nothing, 130 stopped.
    """
    from octavo.cli._run import Run
    from octavo.pipeline.settings_file import load_config

    flags: dict[str, Any] = {
        "mode": mode,
        "pages": pages,
        "password": _password(password, password_file),
        "pdf_dpi": pdf_dpi,
        "max_long_edge_px": max_long_edge_px,
        "ocr": ocr,
        "layout_model": layout_model,
        "batch_size": batch_size,
        "page_timeout_s": page_timeout_s,
        "worker_memory_mb": worker_memory_mb,
        "padding": padding,
        "crop_upscale": crop_upscale,
        "save_pages": save_pages,
        "save_crops": save_crops,
        "save_manifest": save_manifest,
        "manifest_filename": manifest_filename,
        "summaries": summaries,
        "html": html,
    }
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose exclude each other", next_step="give one of them")
    _log_to_stderr(verbose)
    run = Run(
        inputs,
        out,
        load_config(flags, file=config),
        json_lines=json_lines,
        quiet=quiet,
        verbose=verbose,
    )
    try:
        with ends_within(GRACE_S, exit_code=INTERRUPTED, last_words=run.say_how_to_go_on):
            code = run()
    except KeyboardInterrupt:
        run.say_how_to_go_on()
        raise typer.Exit(INTERRUPTED) from None
    raise typer.Exit(code)


def _log_to_stderr(verbose: bool) -> None:
    """What the parts log is for ``--verbose``; what a user must know comes as an event."""
    logging.basicConfig(
        level=logging.WARNING if verbose else logging.CRITICAL,
        format="%(name)s: %(message)s",
        stream=sys.stderr,
    )
    if verbose:
        logging.getLogger("octavo").setLevel(logging.DEBUG)


def _password(text: str | None, file: Path | None) -> str | None:
    """The password from either option, without its line end."""
    if file is None:
        return text
    if text is not None:
        raise ConfigError(
            "--password and --password-file exclude each other", next_step="give one of them"
        )
    try:
        content = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the password file cannot be read",
            where=str(file),
            next_step="check --password-file; its first line is the password, in UTF-8",
        ) from error
    return content.splitlines()[0] if content else ""
