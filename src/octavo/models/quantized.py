"""Linear layers whose weights are held in 8 or 4 bits; sums stay in float.

The layouts and their bytes are those of :mod:`octavo.hardware.spec`. Weights arrive in blocks of
rows while a file is read, are quantized in cache and stored at once; nothing the size of a
matrix is ever made, neither here nor in ``forward``. For inference: no gradient passes.

Shape letters: n rows of the weight (outputs), k columns (inputs), m tokens, r rows of a block,
g groups.
"""

from __future__ import annotations

import math
import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, Self

import torch
from torch import nn

from octavo.errors import ConfigError
from octavo.hardware.spec import Precision, TensorSpec

#: Weights made float again at a time, in bytes; one buffer a thread. It should stay in cache.
SCRATCH: Final = 4 * 1024 * 1024
#: Float rows of a block being quantized, in bytes.
FILL_BLOCK: Final = 1024 * 1024
_held = threading.local()


class QuantizedLinear(nn.Module):
    """``x @ w.T + bias`` with a quantized ``w``; made by :meth:`empty` or :func:`swap`.

    Attributes:
        in_features, out_features: as of ``nn.Linear``.
        precision: ``INT8`` or ``INT4``.
        compute: the float type of inputs, outputs and bias.
        row_block: rows that are stored together: filling from a multiple of it, a multiple of
            it at a time, is fastest.
    """

    precision: Precision
    row_block: int = 1
    bias: nn.Parameter | None

    def __init__(self, out_features: int, in_features: int, compute: torch.dtype) -> None:
        super().__init__()
        self.out_features = out_features
        self.in_features = in_features
        self.compute = compute
        self.register_parameter("bias", None)

    @classmethod
    def empty(
        cls,
        out_features: int,
        in_features: int,
        bias: bool,
        precision: Precision,
        compute: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> QuantizedLinear:
        """A layer to be filled; its values are undefined until then.

        Raises:
            ConfigError: ``precision`` is a float type, or the shape does not suit it.
        """
        from octavo.models.quantized_int4 import Int4Linear
        from octavo.models.quantized_int8 import Int8Linear

        spec = _spec(out_features, in_features)
        if not precision.quantized or not spec.quantizable(precision):
            raise ConfigError(
                f"a {out_features} x {in_features} weight cannot be held as {precision}",
                next_step="int8 takes any matrix, int4 one with a multiple of 64 inputs",
            )
        kind = Int8Linear if precision is Precision.INT8 else Int4Linear
        layer = kind(out_features, in_features, compute, device)
        if bias:
            layer.bias = nn.Parameter(
                torch.empty(out_features, dtype=compute, device=device), requires_grad=False
            )
        return layer

    @property
    def nbytes(self) -> int:
        """Bytes of weight and bias."""
        held = [*self.buffers(recurse=False), *self.parameters(recurse=False)]
        return sum(tensor.nbytes for tensor in held)

    @torch.no_grad()
    def fill(self, first_row: int, rows_rk: torch.Tensor) -> None:
        """Quantizes float rows into place. Threads may fill disjoint rows at the same time.

        Args:
            first_row: where they belong.
            rows_rk: shape (r, in_features), any float type.

        Raises:
            ConfigError: rows of another shape, or beyond the last.
        """
        count, width = rows_rk.shape
        if width != self.in_features or first_row < 0 or first_row + count > self.out_features:
            raise ConfigError(
                f"rows {first_row} to {first_row + count} of {width} values do not belong in a "
                f"{self.out_features} x {self.in_features} weight"
            )
        step = max(FILL_BLOCK // (4 * width), 1)
        step = max(step // self.row_block, 1) * self.row_block
        start = first_row
        while start < first_row + count:
            # Up to the next multiple, so that later blocks begin on one.
            stop = min((start // step + 1) * step, first_row + count)
            self._fill_block(start, rows_rk[start - first_row : stop - first_row])
            start = stop

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` (..., in_features) → (..., out_features) in the compute type."""
        x_mk = x.reshape(-1, self.in_features).to(self.compute)
        y_mn = self._multiply(x_mk)
        if self.bias is not None:
            y_mn += self.bias
        return y_mn.view(*x.shape[:-1], self.out_features)

    @abstractmethod
    def dequantized(self) -> torch.Tensor:
        """The weight, shape (out_features, in_features), in the compute type."""

    @abstractmethod
    def error_bound(self) -> torch.Tensor:
        """Largest possible distance of a held weight from what was filled in, float32; shape
        (out_features, 1) or (out_features, groups)."""

    @abstractmethod
    def _fill_block(self, first_row: int, rows_rk: torch.Tensor) -> None: ...

    @abstractmethod
    def _multiply(self, x_mk: torch.Tensor) -> torch.Tensor: ...

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Scales keep their type when the module is cast; only computing changes."""
        kept = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in kept.items():
            now = self._buffers[name]
            if before is not None and now is not None and now.dtype != before.dtype:
                self._buffers[name] = before.to(now.device)
        self.compute = fn(torch.empty(0, dtype=self.compute)).dtype
        return self

    def extra_repr(self) -> str:
        size = f"{self.in_features}, {self.out_features}"
        return f"{size}, {self.precision}, bias={self.bias is not None}"


def swap(
    module: nn.Module,
    weight_names: Iterable[str],
    precision: Precision,
    compute: torch.dtype,
    device: torch.device | str = "cpu",
) -> dict[str, QuantizedLinear]:
    """Puts quantized layers in the place of linear ones.

    Left as they are: names of other layers, weights of a shape that ``precision`` does not take,
    and weights that another layer shares.

    Args:
        module: changed in place; may be on the meta device.
        weight_names: as in ``module.state_dict()``.
        device: of layers whose weight is on the meta device, which are empty afterwards. A real
            weight is quantized where it is.

    Returns:
        the new layers, by the name of the weight. A bias stays the parameter that it was.
    """
    owners = Counter(
        id(parameter)
        for child in module.modules()
        for parameter in child._parameters.values()
        if parameter is not None
    )
    found: dict[str, QuantizedLinear] = {}
    for name in weight_names:
        path, _, last = name.rpartition(".")
        linear = _child(module, path) if last == "weight" and path else None
        # Subclasses have a forward of their own.
        if type(linear) is not nn.Linear or owners[id(linear.weight)] > 1:
            continue
        rows, columns = linear.weight.shape
        if not precision.quantized or not _spec(rows, columns).quantizable(precision):
            continue
        real = not linear.weight.is_meta
        place = linear.weight.device if real else device
        layer = QuantizedLinear.empty(rows, columns, False, precision, compute, place)
        layer.bias = linear.bias
        layer.train(linear.training)
        if real:
            layer.fill(0, linear.weight.detach())
            if linear.bias is not None:
                layer.bias = nn.Parameter(linear.bias.detach().to(compute), requires_grad=False)
        parent, _, own = path.rpartition(".")
        setattr(module.get_submodule(parent), own, layer)
        found[name] = layer
    return found


def scratch(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Memory of this thread for one block, undefined; the next call hands the same out again."""
    count = math.prod(shape)
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    held: torch.Tensor | None = getattr(_held, "block", None)
    nbytes = count * dtype.itemsize
    if held is None or held.numel() < nbytes:
        held = _held.block = torch.empty(max(nbytes, SCRATCH), dtype=torch.uint8)
    return held[:nbytes].view(dtype).view(shape)


def _child(module: nn.Module, path: str) -> nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _spec(rows: int, columns: int) -> TensorSpec:
    return TensorSpec("weight", "", 0, 2 * rows * columns, "BF16", (rows, columns), matrix=True)
