"""Text models in GGUF files: one file with configuration, vocabulary and quantized weights.

Tensors go from the file into the module one after another, made float by the ``gguf`` library a
few rows at a time and rounded at once to what is wanted: the peak is the module and, at most, one
tensor. Configuration, vocabulary and names come through transformers' own support; reading them
takes seconds, so they are kept in Octavo's folder under the SHA-256 of the file's header.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from octavo.errors import BrokenFile, OutputError, SourceNotFound, UnsupportedFormat
from octavo.hardware.home import octavo_home
from octavo.hardware.spec import Precision, TensorSpec
from octavo.models.checkpoint import CONFIG, Checkpoint
from octavo.models.gguf_header import GgufHeader, GgufTensor, library, read_header

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Numbers made float at a time.
_BLOCK: Final = 1 << 20


class Rows(NamedTuple):
    """Some rows of a tensor in the module's layout, float32."""

    first: int
    values: torch.Tensor


class OneFile:
    """A single file as :class:`octavo.models.checkpoint.Files`."""

    def __init__(self, path: Path) -> None:
        self.path_of_file = path

    @property
    def where(self) -> str:
        return str(self.path_of_file)

    def names(self) -> tuple[str, ...]:
        return (self.path_of_file.name,)

    def size(self, name: str) -> int:
        return self._own(name).stat().st_size

    def read(self, name: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        with self._own(name).open("rb") as file:
            file.seek(offset)
            return file.read() if nbytes is None else file.read(nbytes)

    def _own(self, name: str) -> Path:
        if name != self.path_of_file.name:
            raise SourceNotFound(f"no {name} beside the weights", where=self.where)
        return self.path_of_file


class GgufCheckpoint(Checkpoint):
    """A checkpoint in one ``.gguf`` file; its tensors have the names of transformers' modules.

    Args:
        path: of the file.
        name: what the user called it.

    Attributes:
        header: read when it is made.

    Raises:
        SourceNotFound, BrokenFile, UnsupportedFormat, MissingDependency: as ``read_header``.
    """

    def __init__(self, path: Path | str, name: str | None = None) -> None:
        self.path = Path(path)
        self.header: GgufHeader = read_header(self.path)
        super().__init__(OneFile(self.path), name or str(path))

    @cached_property
    def companions(self) -> Path:
        """The folder with ``config.json`` and the tokenizer, made on first use.

        Raises:
            UnsupportedFormat: transformers does not read this architecture.
        """
        folder = octavo_home() / "gguf" / self.header.digest
        if not (folder / CONFIG).is_file():
            made = _fresh(folder.parent)
            try:
                self._write_companions(made)
                # Another process may have been faster; what it wrote is the same.
                if not folder.exists():
                    os.replace(made, folder)
            finally:
                shutil.rmtree(made, ignore_errors=True)
        return folder

    @cached_property
    def config(self) -> Mapping[str, Any]:
        values: Mapping[str, Any] = json.loads((self.companions / CONFIG).read_bytes())
        return values

    @cached_property
    def shards(self) -> tuple[str, ...]:
        return (self.path.name,)

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """As the module has them; ``dtype`` is that of the numbers once they are made float."""
        found = [
            TensorSpec(
                self.names[one.name], self.path.name, one.offset, one.nbytes, "BF16", one.shape
            )
            for one in self.header.tensors.values()
            if one.name in self.names
        ]
        return {tensor.name: tensor for tensor in found}

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Tensor of the file → tensor of the module."""
        from transformers import AutoModelForCausalLM
        from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

        from octavo.models.families.text import read_config
        from octavo.models.skeleton import skeleton

        module = skeleton(read_config(self), AutoModelForCausalLM)
        # Without children: it would ask for each of them again, which takes ten seconds.
        flat = SimpleNamespace(
            config=module.config,
            state_dict=module.state_dict,
            named_children=dict[str, Any]().items,
        )
        known = get_gguf_hf_weights_map(flat, self._processor)
        return {name: known[name] for name in self.header.tensors if name in known}

    def rows(self, name: str) -> Iterator[Rows]:
        """A tensor of the module, made float, from its first row to its last.

        Raises:
            BrokenFile: the file was cut after it was opened.
        """
        stored = self.header.tensors[self._stored_names[name]]
        step = max(_BLOCK // stored.shape[-1], 1)
        if len(stored.shape) == 1 or self._rearranged(stored):
            step = stored.shape[0]
        count = stored.shape[0] if len(stored.shape) > 1 else 1
        for first in range(0, count, step):
            yield Rows(first, self._floats(stored, first, min(first + step, count), count))

    def _floats(self, stored: GgufTensor, first: int, last: int, count: int) -> torch.Tensor:
        import numpy as np
        import torch

        gguf = library()
        row = stored.nbytes // count
        read = self.files.read(self.path.name, stored.offset + first * row, (last - first) * row)
        if len(read) != (last - first) * row:
            raise BrokenFile(f"cut short in {stored.name}", where=str(self.path), next_step=_AGAIN)
        kind = gguf.GGMLQuantizationType[stored.kind]
        shape = stored.shape if count == 1 else (last - first, *stored.shape[1:])
        data = np.frombuffer(read, np.uint8).reshape(-1, row // max(_inner(stored), 1))
        plain = {"F32": np.float32, "F16": np.float16}.get(stored.kind)
        values = data.view(plain) if plain else gguf.dequantize(data, kind)
        values = np.asarray(values, np.float32).reshape(shape)
        done = self._processor.process(values, stored.name).weights
        return torch.from_numpy(np.array(done, np.float32, copy=not done.flags.writeable))

    def _rearranged(self, stored: GgufTensor) -> bool:
        """Whether rows change places between the file and the module."""
        return ".attn_q." in stored.name or ".attn_k." in stored.name

    @cached_property
    def _stored_names(self) -> Mapping[str, str]:
        return {ours: stored for stored, ours in self.names.items()}

    @cached_property
    def _processor(self) -> Any:
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        architecture = self.header.fields.get("general.architecture")
        kind: Any = TENSOR_PROCESSORS.get(str(architecture), TensorProcessor)
        return kind(config=dict(self.config))

    def _write_companions(self, folder: Path) -> None:
        from transformers import AutoTokenizer
        from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = load_gguf_checkpoint(str(self.path))["config"]
                tokenizer = AutoTokenizer.from_pretrained(
                    self.path.parent, gguf_file=self.path.name, local_files_only=True
                )
        except (ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
            architecture = self.header.fields.get("general.architecture", "unknown")
            raise UnsupportedFormat(
                f"transformers does not read this GGUF file, architecture {architecture}: {error}",
                where=str(self.path),
                next_step="use the model's safetensors files",
            ) from error
        tokenizer.save_pretrained(folder)
        (folder / CONFIG).write_text(json.dumps(values, default=_plain), encoding="utf-8")


def load_gguf(
    checkpoint: GgufCheckpoint,
    module: nn.Module,
    sources: Mapping[str, str],
    *,
    precision: Precision | None,
    compute: Precision = Precision.BF16,
    device: torch.device | str = "cpu",
    quantize: Callable[[str], bool] = lambda _name: True,
    on_tensor: Callable[[int], None] = lambda _nbytes: None,
) -> None:
    """Fills ``module``, which is untouched until all is there.

    Args:
        module: its parameters are on the meta device.
        sources: parameter → the checkpoint's tensor; tied ones once.
        precision: of linear layers; None is ``compute``.
        compute: of everything else.
        quantize: by the checkpoint's name, whether a linear weight may be quantized.
        on_tensor: told of the bytes of each tensor, as stored, when it is done.

    Raises:
        BrokenFile: the file was cut after it was opened. The module is as before.
    """
    import torch

    from octavo.models.loading.places import Places
    from octavo.models.quantized import QuantizedLinear

    dtypes = {
        Precision.FP32: torch.float32,
        Precision.BF16: torch.bfloat16,
        Precision.FP16: torch.float16,
    }
    held_at = compute if precision is None or precision.quantized else precision
    dtype = dtypes[held_at]
    places = Places(module)
    copies: dict[str, torch.Tensor] = {}
    layers: list[tuple[nn.Linear, QuantizedLinear]] = []
    for name, source in sources.items():
        place, spec = places[name], checkpoint.tensors[source]
        linear = place.linear
        quantized = precision is not None and precision.quantized and linear is not None
        if quantized and quantize(source) and _matrix(spec).quantizable(precision):  # type: ignore[arg-type]
            assert linear is not None
            assert precision is not None
            rows, columns = spec.shape
            layer = QuantizedLinear.empty(rows, columns, False, precision, dtype, device)
            layers.append((linear, layer))
            for first, values in checkpoint.rows(source):
                layer.fill(first, values.to(device))
        else:
            copies[name] = torch.empty(place.shape, dtype=dtype, device=device)
            for first, values in checkpoint.rows(source):
                _copy(copies[name], first, values)
        on_tensor(spec.nbytes)
    for name, value in copies.items():
        places[name].fill(value)
    for replaced, layer in layers:
        # By now it is filled.
        layer.bias = replaced.bias
        layer.eval()
    places.replace_modules(layers)


_AGAIN: Final = "download the file again"


def _fresh(parent: Path) -> Path:
    """A new folder in ``parent``.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent))
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=str(parent),
            next_step="free some space, or set OCTAVO_HOME to a folder that can be written",
        ) from error


def _copy(out: torch.Tensor, first: int, values: torch.Tensor) -> None:
    if out.ndim == 1:
        out.copy_(values)
    else:
        out[first : first + values.shape[0]].copy_(values)


def _matrix(spec: TensorSpec) -> TensorSpec:
    from dataclasses import replace

    return replace(spec, matrix=True)


def _inner(stored: GgufTensor) -> int:
    """Innermost rows in one outermost row: 1 up to two dimensions."""
    inner = 1
    for side in stored.shape[1:-1]:
        inner *= side
    return inner


def _plain(value: Any) -> Any:
    """A number of numpy as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value.item()
