"""Settings: names and values that are wrong are refused, and the layers lie in their order."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from octavo.errors import ConfigError
from octavo.pipeline.config import FIELD_NAMES, MODES, PipelineConfig, parse_ranges, select_pages
from octavo.pipeline.settings_file import find_file, load_config


def test_a_mode_sets_what_is_not_set() -> None:
    assert PipelineConfig.build(mode="fast").pdf_dpi == 150
    assert PipelineConfig.build(mode="fast", pdf_dpi=96).pdf_dpi == 96
    assert PipelineConfig.build() == PipelineConfig()
    assert {PipelineConfig.build(mode=mode).mode for mode in MODES} == set(MODES)


def test_it_is_frozen_and_travels_to_the_worker() -> None:
    config = PipelineConfig(password="x", pages="1-3")
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(FrozenInstanceError):
        config.pdf_dpi = 3


@pytest.mark.parametrize(
    ("name", "near"),
    [("pdf_dip", "pdf_dpi"), ("dpi", "pdf_dpi"), ("summary", "summaries"), ("page", "pages")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        PipelineConfig.build(**{name: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "fats"),
        ("ocr", True),
        ("pdf_dpi", 0),
        ("pdf_dpi", 5000),
        ("pdf_dpi", "200"),
        ("pdf_dpi", True),
        ("pdf_dpi", 200.0),
        ("max_long_edge_px", 5),
        ("page_timeout_s", 0),
        ("page_timeout_s", float("nan")),
        ("worker_memory_mb", 100),
        ("padding", -1),
        ("crop_upscale", float("inf")),
        ("batch_size", 0),
        ("html", "yes"),
        ("password", 3),
        ("pages", 3),
        ("pages", "3-1"),
        ("manifest_filename", "../manifest.json"),
        ("manifest_filename", "report.json"),
        ("manifest_filename", "journal.sqlite"),
        ("manifest_filename", "pages"),
        ("manifest_filename", ".hidden"),
        ("manifest_filename", "a/b"),
        ("manifest_filename", ""),
    ],
)
def test_a_wrong_value_names_its_setting(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        PipelineConfig(**{name: value})
    assert caught.value.where == name


def test_an_error_does_not_show_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        PipelineConfig(password=b"sesame")
    assert "sesame" not in str(caught.value)


def test_the_content_settings_hold_no_secret_and_nothing_of_the_report() -> None:
    settings = PipelineConfig(password="sesame").content_settings()
    assert "sesame" not in str(settings)
    assert set(settings) < set(FIELD_NAMES)
    limits = {"page_timeout_s", "worker_memory_mb"}
    assert not set(settings) & {"password", "pages", "summaries", "html", *limits}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1", (1,)),
        ("2-4", (2, 3, 4)),
        (" 7 , 1-2 ", (1, 2, 7)),
        ("8-", (8, 9)),
        ("9,9,8-9", (8, 9)),
        ("5-100000000000", (5, 6, 7, 8, 9)),
        (None, tuple(range(1, 10))),
    ],
)
def test_pages_of_a_file_of_nine(text: str | None, numbers: tuple[int, ...]) -> None:
    assert select_pages(text, 9) == numbers


@pytest.mark.parametrize("text", ["", "0", "a", "1,,2", "3-2", "-3", "1-2-3", "1.5", "١", "1 2"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_ranges(text)


def test_pages_that_the_file_does_not_have() -> None:
    with pytest.raises(ConfigError, match="pages from 1 to 9"):
        select_pages("10-20", 9)


# Layers.


def settings(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "octavo.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    settings(tmp_path, 'pdf_dpi = 100\npadding = 1\nocr = "never"\n')
    (tmp_path / "deep" / "er").mkdir(parents=True)
    config = load_config(
        {"pdf_dpi": 300, "padding": None},
        environ={"OCTAVO_PDF_DPI": "200", "OCTAVO_PADDING": "2", "HOME": "/"},
        cwd=tmp_path / "deep" / "er",
    )
    assert (config.pdf_dpi, config.padding, config.ocr, config.html) == (300, 2, "never", True)


def test_the_mode_of_any_layer_sets_the_rest(tmp_path: Path) -> None:
    file = settings(tmp_path, 'mode = "fast"\n')
    assert load_config({}, file=file, environ={}).pdf_dpi == 150
    assert load_config({"mode": "quality"}, file=file, environ={}).pdf_dpi == 200


def test_the_environment_is_read_as_the_field_is(tmp_path: Path) -> None:
    environ = {
        "OCTAVO_SAVE_MANIFEST": "yes",
        "OCTAVO_HTML": "0",
        "OCTAVO_MAX_LONG_EDGE_PX": "900",
        "OCTAVO_PAGE_TIMEOUT_S": "1.5",
        "OCTAVO_PAGES": "1-2",
    }
    config = load_config({}, environ=environ, cwd=tmp_path)
    assert (config.save_manifest, config.html) == (True, False)
    assert (config.max_long_edge_px, config.page_timeout_s, config.pages) == (900, 1.5, "1-2")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OCTAVO_PDF_DIP", "3", "OCTAVO_PDF_DPI"),
        ("OCTAVO_PDF_DPI", "many", "a number"),
        ("OCTAVO_HTML", "perhaps", "true or false"),
        ("OCTAVO_PDF_DPI", "3", "environment: pdf_dpi"),
    ],
)
def test_a_wrong_variable(tmp_path: Path, variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config({}, environ={variable: value}, cwd=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pdf_dip = 3", "did you mean 'pdf_dpi'"),
        ("pdf_dpi = 3", r"octavo\.toml: pdf_dpi"),
        ("pdf_dpi = ", "is not TOML"),
        ("[parse]\npdf_dpi = 3", "unknown setting 'parse'"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = settings(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config({}, file=file, environ={})
    assert str(file) in str(caught.value)


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config({}, file=tmp_path / "none.toml", environ={})
    assert find_file(tmp_path) is None or find_file(tmp_path) not in tmp_path.iterdir()
