"""What of a model its features follow from, as one digest: weights, settings and precision."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from octavo.hardware.spec import TensorSpec
from octavo.models.checkpoint import Checkpoint
from octavo.models.family import Family

if TYPE_CHECKING:
    from torch import nn

#: Components that features go through.
SEEING: Final = ("vision", "audio", "projector")
#: Files that say how media are prepared.
_SETTINGS: Final = (
    *("preprocessor_config.json", "processor_config.json"),
    *("video_preprocessor_config.json", "image_processor_config.json"),
)
_PIECE: Final = 8 << 20
_READERS: Final = 4


@dataclass(frozen=True, slots=True)
class ModelMark:
    """Which model made features, and how it was held. SHA-256 digests, never a path or a name.

    Attributes:
        family: whose code computed them.
        revision: of ``config.json``, of every tensor's name, type and shape, and of the bytes of
            tower and projector.
        settings: of the files that say how media are prepared.
        precision: of the types in which tower and projector are held in memory.
    """

    family: str
    revision: bytes
    settings: bytes
    precision: bytes


def mark_of(checkpoint: Checkpoint, family: Family, module: nn.Module) -> ModelMark:
    """The mark of ``module`` as it was loaded from ``checkpoint``.

    The weights of tower and projector are read once: names and shapes alone are the same in a
    checkpoint that was trained further. Ask it once a model.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    return ModelMark(
        family.name,
        revision_of(checkpoint, family),
        settings_of(checkpoint),
        precision_of(family, module),
    )


def revision_of(checkpoint: Checkpoint, family: Family) -> bytes:
    """See :attr:`ModelMark.revision`."""
    tensors = sorted(checkpoint.tensors.values(), key=lambda tensor: tensor.name)
    seeing = [tensor for tensor in tensors if family.component_of(tensor.name) in SEEING]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="octavo-digest") as readers:
        contents = readers.map(lambda tensor: _content(checkpoint, tensor), seeing)
        return digest_of(
            _canonical(dict(checkpoint.config)),
            _canonical([[tensor.name, tensor.dtype, tensor.shape] for tensor in tensors]),
            *contents,
        )


def settings_of(checkpoint: Checkpoint) -> bytes:
    """See :attr:`ModelMark.settings`."""
    found = {name: checkpoint.json(name) for name in _SETTINGS if checkpoint.has(name)}
    return digest_of(_canonical(found))


def precision_of(family: Family, module: nn.Module) -> bytes:
    """See :attr:`ModelMark.precision`."""
    held = chain(module.named_parameters(), module.named_buffers())
    kinds = sorted(
        [name, str(tensor.dtype), list(tensor.shape)]
        for name, tensor in held
        if family.component_of(name) in SEEING
    )
    return digest_of(_canonical(kinds))


def digest_of(*pieces: bytes | memoryview) -> bytes:
    """SHA-256 of several pieces; equal only where each piece is equal."""
    digest = hashlib.sha256()
    for piece in pieces:
        # Lengths stand before what varies, or two different lists could make the same bytes.
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.digest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _content(checkpoint: Checkpoint, tensor: TensorSpec) -> bytes:
    digest = hashlib.sha256()
    for done in range(0, tensor.nbytes, _PIECE):
        wanted = min(_PIECE, tensor.nbytes - done)
        digest.update(checkpoint.files.read(tensor.file, tensor.offset + done, wanted))
    return digest.digest()
