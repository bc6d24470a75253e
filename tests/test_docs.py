"""The documentation says what is true: paths, commands, settings, snippets and measured numbers."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer
from benchmarks.documents.rules import KINDS, load_rules
from tools import engine_tables, memory_tables, model_tables, readme_table

import octavo
from octavo.cli.main import app
from octavo.document import Report
from octavo.pipeline.config import FIELD_NAMES, MODES, PRESETS, PipelineConfig
from octavo.pipeline.settings_file import ENV_PREFIX
from octavo.types import Category

ROOT = Path(__file__).resolve().parent.parent
README, GUIDE, CONTRIBUTING = (
    ROOT / name for name in ("README.md", "docs/guide.md", "CONTRIBUTING.md")
)
COVERAGE, CHANGELOG = ROOT / "docs/coverage.md", ROOT / "CHANGELOG.md"
DECISIONS = ROOT / "docs/decisions"
PAGES = (README, GUIDE, CONTRIBUTING, COVERAGE, CHANGELOG, DECISIONS / "README.md")

IDS = [
    f"{letter}{number}"
    for letter, last in {"D": 13, "M": 12, "R": 10, "P": 4, "T": 6, "S": 3}.items()
    for number in range(1, last + 1)
]
#: What a path in the text begins with.
FOLDERS = ("src/", "tests/", "benchmarks/", "docs/", "examples/", "tools/", ".ci/")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def rows(text: str) -> list[list[str]]:
    """The cells of every table row that is no heading line."""
    lines = [line for line in text.splitlines() if line.startswith("|") and "| ---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands() -> list[str]:
    found: list[str] = []
    for page in (README, GUIDE):
        found += [*"".join(blocks(page, "sh")).splitlines(), *code_spans(page)]
    return sorted({line for line in found if line.startswith("octavo ")})


def snippets() -> list[str]:
    return [block for page in (README, GUIDE) for block in blocks(page, "python")]


def parsed(line: str) -> dict[str, Any]:
    """What the real command line makes of ``line``, without running it."""
    words = shlex.split(line, comments=True)[1:]
    group = typer.main.get_group(app)
    try:
        with group.make_context("octavo", list(words)) as context:
            command = group.commands[words[0]]
            with command.make_context(words[0], words[1:], parent=context) as inner:
                return dict(inner.params)
    except typer.Exit:  # --help and --version
        return {}


# --- coverage -------------------------------------------------------------------------------


def test_coverage_has_every_id_once_with_a_status() -> None:
    table = [row for row in rows(COVERAGE.read_text(encoding="utf-8")) if row[0] != "id"]
    assert Counter(row[0] for row in table) == Counter(IDS)
    for row in table:
        number, promise, code, test, _, status = row
        assert promise, number
        word = next((w for w in ("done", "partly", "not yet") if status.startswith(w)), None)
        assert word, f"{number}: {status}"
        assert word != "partly" or len(status) > len("partly: "), f"{number}: what is missing?"
        assert word == "not yet" or (code and test), f"{number}: {word} without code and test"


def test_coverage_cites_files() -> None:
    for row in rows(COVERAGE.read_text(encoding="utf-8")):
        for kind, folder in zip(row[2:5], ("src/", "tests/", "benchmarks/"), strict=True):
            for path in re.findall(r"`([^`]+)`", kind):
                assert path.startswith(folder), path
                assert (ROOT / path).is_file(), path


# --- links and paths ------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    for span in code_spans(page):
        if span.startswith(FOLDERS):
            assert (ROOT / span).exists(), f"{page.name}: {span}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {target}"


def test_the_index_lists_every_decision_once() -> None:
    listed = re.findall(
        r"^\| \[(\d{4})\]\((\S+)\)", (DECISIONS / "README.md").read_text(), re.MULTILINE
    )
    files = sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))
    assert [name for _, name in listed] == files
    assert all(name.startswith(number) for number, name in listed)


def test_the_pictures_are_small() -> None:
    for picture in (ROOT / "docs/images").iterdir():
        assert picture.stat().st_size < 300_000, picture.name


# --- commands -------------------------------------------------------------------------------


def test_commands_are_found() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("line", commands())
def test_a_command_parses(line: str) -> None:
    options = parsed(line)
    settings = {name: options[name] for name in FIELD_NAMES if options.get(name) is not None}
    PipelineConfig.build(**settings)


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        code = [*code_spans(page), *"".join(blocks(page, "sh")).splitlines()]
        named = {line.split()[1] for line in code if line.startswith("make ")}
        assert named <= targets, page.name


def test_extras_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    for page in PAGES:
        for named in re.findall(r"'\.\[([\w,]+)\]'", page.read_text(encoding="utf-8")):
            assert set(named.split(",")) <= extras, f"{page.name}: {named}"
    listed = rows(GUIDE.read_text().split("## Install")[1].split("## On the")[0])[1:]
    assert {name for row in listed for name in re.findall(r"`(\w+)`", row[0])} == extras


# --- settings -------------------------------------------------------------------------------


def test_the_guide_has_every_setting_with_its_default() -> None:
    default = PipelineConfig()
    expected = {f"`{name}`": f"`{getattr(default, name)!r}`" for name in FIELD_NAMES}
    table = GUIDE.read_text(encoding="utf-8").split("| setting |")[1].split("| mode | sets")[0]
    found = {row[0]: row[1].replace('"', "'") for row in rows(table)}
    assert found == expected


def test_the_guide_has_every_mode_with_its_preset() -> None:
    table = rows("| mode | sets" + GUIDE.read_text().split("| mode | sets")[1].split("\n\n")[0])
    found = {row[0].strip("`"): row[1] for row in table[1:]}
    assert set(found) == set(MODES)
    for mode, preset in PRESETS.items():
        named = dict(re.findall(r"`(\w+)` (\d+)", found[mode]))
        assert named == {name: str(value) for name, value in preset.items()}


def test_settings_files_and_variables_are_read() -> None:
    for block in blocks(GUIDE, "toml"):
        PipelineConfig.build(**tomllib.loads(block))
    variables = re.findall(rf"`{ENV_PREFIX}(\w+)=[^`]*`", GUIDE.read_text(encoding="utf-8"))
    assert variables
    assert {name.lower() for name in variables} <= set(FIELD_NAMES)


def test_the_guide_names_every_category() -> None:
    text = " ".join(GUIDE.read_text(encoding="utf-8").split())
    assert f"eleven categories: {', '.join(sorted(Category))}." in text


# --- Python ---------------------------------------------------------------------------------


@pytest.mark.parametrize("source", snippets())
def test_a_snippet_names_what_exists(source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = {"octavo": octavo, "report": Report}.get(node.value.id)
            named = set(dir(owner)) | set(getattr(owner, "__dataclass_fields__", ()))
            assert owner is None or node.attr in named, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".parse", ".build")):
            assert {word.arg for word in node.keywords} <= {"out", "reader", *FIELD_NAMES}


def test_the_reader_of_the_guide_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "examples")
    (source,) = (block for block in blocks(GUIDE, "python") if "class WholePage" in block)
    names: dict[str, Any] = {}
    exec(source, names)
    report = names["report"]
    assert report.status == "ok"
    assert "How Long Does a Sewn Book Stay Open?" in report.markdown()


# --- numbers, versions, rules ---------------------------------------------------------------


def test_the_table_of_results_is_up_to_date() -> None:
    text = README.read_text(encoding="utf-8")
    assert readme_table.updated(text) == text, "run python tools/readme_table.py"


@pytest.mark.parametrize("page", memory_tables.PAGES, ids=lambda page: page.name)
def test_the_tables_of_memory_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- " in text
    assert memory_tables.updated(text) == text, "run python tools/memory_tables.py"


@pytest.mark.parametrize("page", model_tables.PAGES, ids=lambda page: page.name)
def test_the_tables_of_models_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- models" in text
    assert model_tables.updated(text) == text, "run python tools/model_tables.py"


@pytest.mark.parametrize("page", engine_tables.PAGES, ids=lambda page: page.name)
def test_the_tables_of_the_engine_are_up_to_date(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- engine" in text
    assert engine_tables.updated(text) == text, "run python tools/engine_tables.py"


def test_the_table_shows_what_was_measured() -> None:
    accuracy = readme_table.load("accuracy")
    assert accuracy is not None
    table = rows(README.read_text(encoding="utf-8"))
    column = table[0].index("Octavo")
    (whole,) = (row for row in table if row[0].startswith("all facts"))
    assert whole[column].split()[0] == str(accuracy["tools"]["octavo"]["passed"])


def test_the_changelog_has_this_version() -> None:
    assert f"\n## [{octavo.__version__}] - " in CHANGELOG.read_text(encoding="utf-8")


def test_the_example_of_a_rule_is_one(tmp_path: Path) -> None:
    (example,) = blocks(CONTRIBUTING, "json")
    (tmp_path / "example.json").write_text(example, encoding="utf-8")
    assert {rule.kind for rule in load_rules(tmp_path)} == set(KINDS)
