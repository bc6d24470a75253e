"""Models from a hub: what they are before anything is fetched, then file by file with resume.

The listing, its addresses and retries are huggingface_hub's. Its own download begins anew after
the process was stopped, so a part file is kept here and continued with a range request; and every
file is checked against the hub's SHA-256, or git's SHA-1 for small ones.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from octavo.errors import (
    BrokenFile,
    DownloadError,
    MissingDependency,
    OutputError,
    SourceNotFound,
    UnsupportedFormat,
)
from octavo.hardware.home import octavo_home
from octavo.memory.sizes import format_bytes

#: What a model needs. Weights in pickle files are never among it.
_WANTED: Final = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "*.tiktoken",
    "vocab*.txt",
    "merges.txt",
    "LICENSE*",
    "model.bin",
)
_NEVER: Final = ("onnx/*", "original/*", "openvino/*", "*.msgpack", "*.h5", "*.ot", "training*")
NOTE: Final = "octavo.json"
#: Kept free on the disk beside the model.
_SPARE: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file as the hub lists it; ``sha256`` of large ones, ``sha1`` (git) of the others."""

    name: str
    nbytes: int
    sha256: str | None
    sha1: str | None


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """What would be fetched. ``revision`` is the exact commit; ``licence`` as its page says."""

    name: str
    revision: str
    licence: str | None
    gated: bool
    files: tuple[RemoteFile, ...]

    @property
    def nbytes(self) -> int:
        return sum(file.nbytes for file in self.files)


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Bytes that are there, of the file being fetched and of all."""

    file: str
    file_done: int
    file_nbytes: int
    done: int
    nbytes: int


def folder_of(name: str) -> Path:
    """Where a hub's model lies on this machine, whether it is there or not."""
    return octavo_home() / "models" / name.replace("/", "--")


def look(name: str, revision: str | None = None) -> RemoteModel:
    """Asks the hub what a model is; fetches none of it.

    Raises:
        SourceNotFound: the hub has no such model or revision.
        DownloadError: the hub cannot be reached, or keeps the model for those who agreed.
        UnsupportedFormat: it has weights only in formats that run code when they are read, or a
            file whose name leads out of the model's folder.
    """
    with speaking_of(name):
        from huggingface_hub import HfApi

        found = HfApi().model_info(name, revision=revision, files_metadata=True)
    files = tuple(
        RemoteFile(
            sibling.rfilename,
            int(sibling.size or 0),
            sibling.lfs.sha256 if sibling.lfs is not None else None,
            sibling.blob_id if sibling.lfs is None else None,
        )
        for sibling in found.siblings or ()
        if _is_wanted(sibling.rfilename)
    )
    _check_inside(name, files)
    if not any(file.name.endswith((".safetensors", "model.bin")) for file in files):
        raise UnsupportedFormat(
            "no .safetensors weights",
            where=name,
            next_step="pickle files can run code and are never loaded; look for a conversion",
        )
    card: Any = found.card_data or {}
    return RemoteModel(
        name, str(found.sha), card.get("license"), bool(getattr(found, "gated", False)), files
    )


def pull(
    model: RemoteModel,
    on_progress: Callable[[PullProgress], None] = lambda _progress: None,
    folder: Path | None = None,
) -> Path:
    """Fetches what is missing and checks it; a stopped pull goes on where it was. Two that pull the
    same model take turns.

    Returns:
        The model's folder; its note (``octavo.json``) is written last, when all is there.

    Raises:
        DownloadError: the connection broke for good (what came is kept), or the bytes are not
            those that the hub announced (the file is removed).
        OutputError: no room on the disk, or the folder cannot be written.
        UnsupportedFormat: a file's name leads out of the folder.
    """
    _check_inside(model.name, model.files)
    folder = folder or folder_of(model.name)
    with _alone(folder):
        _pull(model, on_progress, folder)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits while another process, or thread, writes into ``folder``, which is made."""
    from huggingface_hub.utils._fixes import WeakFileLock

    with ExitStack() as held:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(WeakFileLock(folder.parent / f".{folder.name}.lock"))
        yield


def _pull(model: RemoteModel, on_progress: Callable[[PullProgress], None], folder: Path) -> None:
    with _writing(folder):
        _leave_other_revision(model, folder)
        have = {file.name: _have(folder, file) for file in model.files}
        free = shutil.disk_usage(folder).free
    missing = model.nbytes - sum(have.values())
    if missing + _SPARE > free:
        raise OutputError(
            f"{format_bytes(missing)} to fetch, {format_bytes(free)} free",
            where=str(folder),
            next_step="free some, or set OCTAVO_HOME to a folder on another disk",
        )
    before = 0
    for file in model.files:

        def tell(done: int, file: RemoteFile = file, before: int = before) -> None:
            on_progress(PullProgress(file.name, done, file.nbytes, before + done, model.nbytes))

        _fetch(model, file, folder, tell)
        before += file.nbytes
    facts = {
        "name": model.name,
        "revision": model.revision,
        "licence": model.licence,
        "files": {file.name: file.sha256 or file.sha1 for file in model.files},
    }
    part = folder / f"{NOTE}.part"
    with _writing(folder):
        part.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        part.replace(folder / NOTE)


def _check_inside(model: str, files: Iterable[RemoteFile]) -> None:
    """Names come from strangers: none may lead out of the folder, on any system."""
    for file in files:
        kinds = (PurePosixPath(file.name), PureWindowsPath(file.name))
        if not file.name or any(".." in kind.parts or kind.anchor for kind in kinds):
            raise UnsupportedFormat(
                f"a file named {file.name!r} would be written outside the model's folder",
                where=model,
                next_step="do not use this model; tell the hub about it",
            )


def _leave_other_revision(model: RemoteModel, folder: Path) -> None:
    """From here on the folder is not a finished model, until all of this revision is there;
    files that this revision has not would be taken for its own."""
    try:
        note = note_of(folder)
    except BrokenFile:
        note = {}
    if note is None or note.get("revision") == model.revision:
        return
    (folder / NOTE).unlink()
    listed = note.get("files")
    gone = set(listed if isinstance(listed, dict) else ()) - {file.name for file in model.files}
    for path in (folder / name for name in gone):
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            path.unlink()


def _is_wanted(name: str) -> bool:
    if name == NOTE:  # ours, and it says that a pull was finished
        return False
    return any(fnmatch.fnmatch(name, pattern) for pattern in _WANTED) and not any(
        fnmatch.fnmatch(name, pattern) for pattern in _NEVER
    )


def _part(folder: Path, file: RemoteFile) -> Path:
    # The content's name is in it: parts of another revision are not continued.
    return folder / f"{file.name}.{(file.sha256 or file.sha1 or 'unknown')[:12]}.part"


def _have(folder: Path, file: RemoteFile) -> int:
    """Bytes of ``file`` that need not be fetched."""
    for path in (folder / file.name, _part(folder, file)):
        if path.is_file():
            return min(path.stat().st_size, file.nbytes)
    return 0


def _fetch(model: RemoteModel, file: RemoteFile, folder: Path, tell: Callable[[int], None]) -> None:
    whole, part = folder / file.name, _part(folder, file)
    if whole.is_file() and whole.stat().st_size == file.nbytes and _is_whole(whole, file):
        tell(file.nbytes)
        return
    with _writing(folder):
        whole.parent.mkdir(parents=True, exist_ok=True)
        have = part.stat().st_size if part.is_file() else 0
        if have > file.nbytes:
            part.unlink()
            have = 0
        with part.open("ab") as opened:
            tell(have)
            _receive(model, file, opened, have, tell)
    if part.stat().st_size != file.nbytes or not _is_whole(part, file):
        part.unlink()
        raise DownloadError(
            f"{file.name} is not what the hub announced (its checksum differs); it was removed",
            where=model.name,
            next_step="pull again; if it happens again, something on the way changes files",
        )
    with _writing(folder):
        part.replace(whole)


def _receive(
    model: RemoteModel, file: RemoteFile, opened: Any, have: int, tell: Callable[[int], None]
) -> None:
    if have == file.nbytes:
        return
    with speaking_of(model.name):
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils._headers import build_hf_headers

        http_get(
            hf_hub_url(model.name, file.name, revision=model.revision),
            opened,
            resume_size=have,
            headers=build_hf_headers(),
            expected_size=file.nbytes,
            displayed_filename=file.name,
            _tqdm_bar=_Meter(have, tell),
        )


class _Meter:
    """What huggingface_hub takes for a progress bar."""

    def __init__(self, done: int, tell: Callable[[int], None]) -> None:
        self._done = done
        self._tell = tell

    def update(self, nbytes: float | None = 1) -> None:
        self._done += int(nbytes or 0)
        self._tell(self._done)

    def __enter__(self) -> _Meter:
        return self

    def __exit__(self, *_: object) -> None:
        return


def _is_whole(path: Path, file: RemoteFile) -> bool:
    if file.sha256 is None and file.sha1 is None:
        return True
    digest = hashlib.sha256() if file.sha256 is not None else hashlib.sha1(usedforsecurity=False)
    if file.sha256 is None:
        digest.update(f"blob {path.stat().st_size}\0".encode())  # as git names its objects
    with path.open("rb") as opened:
        while piece := opened.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest() == (file.sha256 or file.sha1)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, ConnectionError | TimeoutError):
            raise
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=str(folder),
            next_step="free some space, or set OCTAVO_HOME to a folder that can be written",
        ) from error


@contextmanager
def speaking_of(name: str) -> Iterator[None]:
    """The hub's many errors as ours."""
    try:
        import huggingface_hub.errors as hub

        # Its HTTP library, which changed its name between releases.
        found = "httpx2" if importlib.util.find_spec("httpx2") else "httpx"
        http = importlib.import_module(found)
    except ImportError as error:
        raise MissingDependency(
            "huggingface_hub is needed to fetch models",
            next_step="pip install 'octavo[models]'",
        ) from error
    try:
        yield
    except hub.GatedRepoError as error:
        raise DownloadError(
            "its owners give this model only to those who agree to their terms",
            where=name,
            next_step="agree on the model's page, then set HF_TOKEN",
        ) from error
    except (hub.RepositoryNotFoundError, hub.RevisionNotFoundError, hub.HFValidationError) as error:
        raise SourceNotFound(
            "the hub has no such model or revision",
            where=name,
            next_step="check the spelling (owner/name); a private one needs HF_TOKEN",
        ) from error
    except hub.OfflineModeIsEnabled as error:
        raise DownloadError(
            "HF_HUB_OFFLINE is set, so the hub is not asked", where=name, next_step=_OFFLINE
        ) from error
    except hub.HfHubHTTPError as error:
        raise DownloadError(
            f"the hub refused: {str(error).splitlines()[0]}", where=name, next_step="try later"
        ) from error
    except (http.HTTPError, ConnectionError, TimeoutError) as error:
        raise DownloadError(
            f"the hub cannot be reached: {type(error).__name__}", where=name, next_step=_OFFLINE
        ) from error
    except OSError as error:
        if "Consistency check failed" in str(error):
            raise DownloadError(
                "the connection broke; what came is kept",
                where=name,
                next_step="pull again to go on",
            ) from error
        raise


_OFFLINE: Final = (
    "check the network, or copy the model's folder here from another machine and give its path"
)


def note_of(folder: Path) -> dict[str, Any] | None:
    """What a finished pull wrote beside the files; None when it was never finished.

    Raises:
        BrokenFile: the note cannot be read.
    """
    path = folder / NOTE
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BrokenFile(
            "the note of a pull is damaged", where=str(path), next_step="pull the model again"
        ) from error
    return facts if isinstance(facts, dict) else None
