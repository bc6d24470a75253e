"""Quantized layers against float64 arithmetic on what they hold and on what was filled in."""

from __future__ import annotations

import copy
import threading
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from octavo.errors import ConfigError
from octavo.hardware.spec import Precision, TensorSpec
from octavo.models import quantized, quantized_int4
from octavo.models.quantized import QuantizedLinear, swap

INT8, INT4 = Precision.INT8, Precision.INT4
SHAPES = [(128, 64), (192, 512), (100, 128), (33, 192)]
#: Of one rounded sum, relative to the whole result.
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


def _weights(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=draw) * 0.02
    weight += torch.randn(rows, 1, generator=draw) * 0.05
    weight[3] = 0
    weight[5] = 0.3
    weight[7, 11] = 4.0
    return weight


def _layer(weight: torch.Tensor, precision: Precision, compute: torch.dtype) -> QuantizedLinear:
    layer = QuantizedLinear.empty(*weight.shape, False, precision, compute)
    layer.fill(0, weight)
    return layer


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", [INT8, INT4])
def test_no_weight_is_farther_than_declared(precision: Precision, shape: tuple[int, int]) -> None:
    weight = _weights(*shape)
    layer = _layer(weight, precision, torch.float32)
    distance = (layer.dequantized().double() - weight.double()).abs()
    groups = layer.error_bound().shape[1]
    assert (distance.view(shape[0], groups, -1).amax(-1) <= layer.error_bound()).all()
    # The bound says something: half a step is not far above what happens.
    usual = weight.view(shape[0], groups, -1)
    steps = (usual.amax(-1) - usual.amin(-1)) / (254 if precision is INT8 else 15)
    assert layer.error_bound()[0].mean() < 2 * max(float(steps[0].mean()), 0.003)
    assert torch.equal(layer.dequantized()[3], torch.zeros(shape[1]))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(1e-6, 1e4),
    offset=st.floats(-100, 100),
    precision=st.sampled_from([INT8, INT4]),
)
def test_the_bound_holds_for_any_scale(
    seed: int, scale: float, offset: float, precision: Precision
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(64, 64, generator=draw) * scale + offset
    layer = _layer(weight, precision, torch.float32)
    distance = (layer.dequantized().double() - weight.double()).abs().amax(1, keepdim=True)
    slack = 4e-7 * weight.abs().amax(1, keepdim=True)
    assert (distance <= layer.error_bound() + slack).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("precision", [INT8, INT4])
@pytest.mark.parametrize("compute", list(ROUNDING))
def test_forward_is_the_product_with_what_is_held(
    precision: Precision, shape: tuple[int, int], compute: torch.dtype
) -> None:
    held = _layer(_weights(*shape), precision, torch.float32).dequantized().double()
    layer = _layer(_weights(*shape), precision, compute)
    layer.bias = nn.Parameter(torch.randn(shape[0]).to(compute))
    # Few tokens, many, and none go different ways.
    for tokens in (1, 5, 8, 9, 200, 0):
        x = torch.randn(2, tokens, shape[1]).to(compute)
        wanted = x.double() @ held.t() + layer.bias.double()
        got = layer(x)
        assert got.dtype == compute
        assert got.shape == (2, tokens, shape[0])
        assert not got.requires_grad
        assert (got.double() - wanted).norm() <= ROUNDING[compute] * wanted.norm()


@pytest.mark.parametrize("precision", [INT8, INT4])
def test_sums_in_float16_do_not_overflow(precision: Precision) -> None:
    layer = _layer(torch.full((64, 1024), 0.02), precision, torch.float16)
    got = layer(torch.full((1, 1024), 30.0, dtype=torch.float16))
    torch.testing.assert_close(got.float(), torch.full((1, 64), 614.4), rtol=5e-3, atol=0)


@pytest.mark.parametrize("precision", [INT8, INT4])
def test_bytes_are_those_of_the_plan(precision: Precision) -> None:
    for rows, columns in SHAPES:
        spec = TensorSpec("w", "", 0, 0, "BF16", (rows, columns), matrix=True)
        for bias, more in ((False, 0), (True, 2 * rows)):
            layer = QuantizedLinear.empty(rows, columns, bias, precision, torch.bfloat16)
            assert layer.nbytes == spec.bytes_at(precision) + more
            held = [*layer.buffers(), *layer.parameters()]
            assert sum(tensor.untyped_storage().nbytes() for tensor in held) == layer.nbytes
            assert not any(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize("precision", [INT8, INT4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_rows_may_come_in_any_pieces(precision: Precision, dtype: torch.dtype) -> None:
    weight = _weights(256, 128).to(dtype)
    whole = _layer(weight, precision, torch.float32)
    pieces = QuantizedLinear.empty(256, 128, False, precision, torch.float32)
    for first, last in [(200, 256), (0, 1), (63, 129), (1, 63), (129, 200)]:
        pieces.fill(first, weight[first:last])
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffer, pieces.get_buffer(name)), name


@pytest.mark.parametrize("precision", [INT8, INT4])
def test_threads_fill_rows_of_the_same_panel(precision: Precision) -> None:
    weight = _weights(256, 64)
    whole = _layer(weight, precision, torch.float32)
    for _ in range(5):
        shared = QuantizedLinear.empty(256, 64, False, precision, torch.float32)
        start = threading.Barrier(4)

        def fill(number: int, layer: QuantizedLinear = shared, ready: Any = start) -> None:
            ready.wait()
            for row in range(number, 256, 4):
                layer.fill(row, weight[row : row + 1])

        threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.equal(shared.dequantized(), whole.dequantized())


def test_a_panel_is_changed_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = _weights(64, 64)
    monkeypatch.setattr(quantized_int4, "panel_rows", lambda: 64)
    layer = QuantizedLinear.empty(64, 64, False, INT4, torch.float32)
    both, read = threading.Barrier(2), quantized_int4._codes

    def slowly(packed: torch.Tensor) -> torch.Tensor:
        found = read(packed)
        with suppress(threading.BrokenBarrierError):
            both.wait(timeout=0.3)  # the other has read, too, if it may
        return found

    monkeypatch.setattr(quantized_int4, "_codes", slowly)
    halves = [(0, weight[:32]), (32, weight[32:])]
    threads = [threading.Thread(target=layer.fill, args=half) for half in halves]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.setattr(quantized_int4, "_codes", read)
    assert torch.equal(layer.dequantized(), _layer(weight, INT4, torch.float32).dequantized())


def test_rows_that_do_not_belong_are_refused() -> None:
    layer = QuantizedLinear.empty(64, 64, False, INT8, torch.float32)
    for first, shape in [(60, (5, 64)), (-1, (2, 64)), (0, (1, 32))]:
        with pytest.raises(ConfigError, match="do not belong"):
            layer.fill(first, torch.zeros(shape))


def test_a_shape_or_type_that_does_not_suit_is_refused() -> None:
    with pytest.raises(ConfigError, match="64 x 40 weight cannot be held as int4"):
        QuantizedLinear.empty(64, 40, False, INT4, torch.float32)
    with pytest.raises(ConfigError, match="cannot be held as bf16"):
        QuantizedLinear.empty(64, 64, False, Precision.BF16, torch.float32)


@pytest.mark.parametrize("precision", [INT8, INT4])
def test_a_state_comes_back_exact(precision: Precision, tmp_path: Any) -> None:
    from safetensors.torch import load_file, save_file

    layer = _layer(_weights(128, 64), precision, torch.bfloat16)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    again = QuantizedLinear.empty(128, 64, False, precision, torch.bfloat16)
    again.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    x = torch.randn(3, 64).bfloat16()
    assert torch.equal(again(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


def test_bytes_lie_as_the_kernel_of_this_processor_wants_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    panel = {"AVX512": 64, "AVX2": 32}.get(torch.backends.cpu.get_cpu_capability())
    if panel is None:
        pytest.skip("no kernel for int4 weights on this processor")
    assert quantized_int4.panel_rows() == panel
    layer = _layer(_weights(128, 64), INT4, torch.bfloat16)
    calls, kernel = [], quantized_int4._kernel
    monkeypatch.setattr(quantized_int4, "_kernel", lambda *given: calls.append(1) or kernel(*given))
    # Each input by itself: exact but for the kernel's own rounding of one weight.
    got = layer(torch.eye(64)[:40].bfloat16()).float()
    assert calls == [1]
    torch.testing.assert_close(got, layer.dequantized().float().t()[:40], rtol=8e-3, atol=1e-6)
    layer(torch.ones(200, 64))
    assert calls == [1]


def test_int4_is_the_same_in_every_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = _weights(128, 128), torch.randn(3, 128)
    layers = []
    for panel in (0, 32, 64):
        monkeypatch.setattr(quantized_int4, "panel_rows", lambda panel=panel: panel)
        layers.append(_layer(weight, INT4, torch.float32))
    assert len({tuple(layer.get_buffer("weight_q").shape) for layer in layers}) == 3
    for layer in layers[1:]:
        assert torch.equal(layer.dequantized(), layers[0].dequantized())
        torch.testing.assert_close(layer(x), layers[0](x))
    for saved in layers:
        for loaded in layers:
            fresh = copy.deepcopy(loaded)
            fresh.get_buffer("weight_q").zero_()
            fresh.load_state_dict(saved.state_dict())
            assert torch.equal(fresh.dequantized(), saved.dequantized())


@pytest.mark.parametrize("precision", [INT8, INT4])
def test_a_cast_changes_how_it_computes_not_what_it_holds(precision: Precision) -> None:
    layer = _layer(_weights(128, 64), precision, torch.float32)
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    layer.to(torch.bfloat16)
    assert layer(torch.randn(2, 64)).dtype == torch.bfloat16
    for name, buffer in layer.named_buffers():
        assert buffer.dtype == before[name].dtype
        assert torch.equal(buffer, before[name])


@pytest.mark.parametrize("precision", [INT8, INT4])
@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_no_matrix_is_made_float_as_a_whole(
    precision: Precision, compute: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Memory that an earlier test left to this thread would not be seen.
    monkeypatch.setattr(quantized, "_held", threading.local())
    rows, columns = 8192, 1024
    layer = QuantizedLinear.empty(rows, columns, False, precision, compute)
    block = torch.randn(512, columns).to(torch.bfloat16)
    # Enough for blocks, and so few that the result is smaller than one.
    x = torch.randn(480 // compute.itemsize, columns).to(compute)
    with _Largest() as largest:
        for first in range(0, rows, 512):
            layer.fill(first, block)
        layer(x)
    assert 0 < largest.nbytes <= 4 * 2**20


class _Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The largest memory that an operation returned."""

    nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_storage(one) for one in args if isinstance(one, torch.Tensor)}
        if isinstance(out, torch.Tensor) and _storage(out) not in given:
            self.nbytes = max(self.nbytes, out.untyped_storage().nbytes())
        return out


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 128)
        self.inner = nn.Sequential(nn.Linear(128, 64, bias=False), nn.LayerNorm(64))
        self.odd = nn.Linear(40, 64)
        self.words = nn.Embedding(10, 64)
        self.head = nn.Linear(64, 10, bias=False)
        self.head.weight = self.words.weight


NAMES = ["first.weight", "first.bias", "inner.0.weight", "inner.1.weight", "odd.weight",
         "words.weight", "head.weight", "absent.weight", "weight"]  # fmt: skip


def test_swap_replaces_what_can_be_quantized() -> None:
    torch.manual_seed(0)
    net = _Net()
    x = torch.randn(3, 64)
    wanted = net.inner(net.first(x))
    layers = swap(net, NAMES, INT4, torch.float32)
    assert set(layers) == {"first.weight", "inner.0.weight"}
    assert net.first is layers["first.weight"]
    assert net.inner[0] is layers["inner.0.weight"]
    assert (net.inner(net.first(x)) - wanted).abs().max() < 0.3
    assert set(swap(_Net(), NAMES, INT8, torch.float32)) == {
        "first.weight", "inner.0.weight", "odd.weight"
    }  # fmt: skip
    assert swap(_Net(), NAMES, Precision.BF16, torch.float32) == {}


def test_swap_of_a_module_without_memory_leaves_layers_to_be_filled() -> None:
    with torch.device("meta"):
        net = _Net()
    bias = net.first.bias
    layers = swap(net, NAMES, INT8, torch.bfloat16)
    layer = layers["first.weight"]
    assert layer.bias is bias
    assert not any(buffer.is_meta for buffer in layer.buffers())
    weight = torch.randn(128, 64)
    layer.fill(0, weight)
    assert (layer.dequantized() - weight).abs().max() < 0.05
