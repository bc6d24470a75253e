"""Files of a hub's model read in place: configuration and headers, by range requests."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from octavo.errors import DownloadError, SourceNotFound
from octavo.models.download import RemoteFile, RemoteModel, speaking_of


class RemoteFiles:
    """Implements ``Files`` over HTTP. Nothing is written to disk.

    Args:
        model: from :func:`octavo.models.download.look`.
    """

    def __init__(self, model: RemoteModel) -> None:
        self._model = model
        self._files = {file.name: file for file in model.files}

    @property
    def where(self) -> str:
        return self._model.name

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._files))

    def size(self, name: str) -> int:
        return self._file(name).nbytes

    def read(self, name: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        """Raises:
        DownloadError: the hub cannot be reached, or sends more or less than was asked for.
        """
        size = self._file(name).nbytes
        end = size if nbytes is None else min(offset + nbytes, size)
        if end <= offset:
            return b""
        with speaking_of(self._model.name):
            from huggingface_hub import hf_hub_url
            from huggingface_hub.utils._headers import build_hf_headers
            from huggingface_hub.utils._http import hf_raise_for_status

            answer = self._session.get(
                hf_hub_url(self._model.name, name, revision=self._model.revision),
                headers={**build_hf_headers(), "Range": f"bytes={offset}-{end - 1}"},
                follow_redirects=True,
            )
            hf_raise_for_status(answer)
        content: bytes = answer.content
        if answer.status_code == 200:  # a server that does not know ranges sends everything
            content = content[offset:end]
        if len(content) != end - offset:
            raise DownloadError(
                f"{len(content)} bytes of {name} came, {end - offset} were asked for",
                where=self._model.name,
                next_step="try again",
            )
        return content

    @cached_property
    def _session(self) -> Any:
        from huggingface_hub.utils._http import get_session

        return get_session()

    def _file(self, name: str) -> RemoteFile:
        if name not in self._files:
            raise SourceNotFound(f"no {name} in this model", where=self._model.name)
        return self._files[name]
