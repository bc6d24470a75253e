"""Whatever ends a load, nothing of it is left: memory, threads, files, the module's parameters."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from octavo.errors import BrokenFile, BudgetExceeded, InputError, OctavoError, ReleasedError
from octavo.hardware.spec import Precision
from octavo.models.loading import Loader, LoadProgress, ReaderPool, memory
from octavo.models.quantized import QuantizedLinear
from tests.models.loading.small import Disk, Saved, Traces, on_meta

WAYS = [None, Precision.FP32, Precision.INT8]


def fails(
    saved: Saved, traces: Traces, error: type[Exception], *, part: str = "text", **how: Any
) -> Exception:
    """Loads, sees it fail, and that nothing is left while the error is still held."""
    module = on_meta()
    named = {key: how.pop(key) for key in ("checksums", "on_progress") if key in how}
    with (
        ReaderPool(threads=4, chunk_bytes=16384) as readers,
        Loader(
            saved.folder, ledger=traces.ledger, readers=readers, staging_bytes=65536, **named
        ) as loader,
    ):
        with pytest.raises(error) as caught:
            saved.start(loader, module, part, **how).wait(30)
        # Also before the loader is closed.
        assert traces.ledger.used("host") == 0
        assert traces.live_memory() == 0
    traces.check_nothing_left(module, saved)
    return caught.value


@pytest.mark.parametrize("precision", WAYS)
@pytest.mark.parametrize("at", [0, 1, 7])
def test_a_disk_error(
    saved: Saved, traces: Traces, monkeypatch: pytest.MonkeyPatch, precision: Any, at: int
) -> None:
    Disk(monkeypatch, at, "eio")
    error = fails(saved, traces, InputError, precision=precision)
    assert "Input/output error" in str(error)
    assert "at byte" in str(error)
    assert ".safetensors" in str(error)


@pytest.mark.parametrize("precision", WAYS)
def test_a_file_that_ends_early(
    saved: Saved, traces: Traces, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    Disk(monkeypatch, 3, "end")
    error = fails(saved, traces, BrokenFile, precision=precision)
    assert "the file ends at byte" in str(error)


def test_a_file_that_is_cut_after_the_load_began(
    own: Saved, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = threading.Event()

    def cut(progress: LoadProgress) -> None:
        if not seen.is_set():
            seen.set()
            for path in own.shards:
                with path.open("r+b") as file:
                    file.truncate(4096)

    fails(own, traces, BrokenFile, precision=Precision.FP32, on_progress=cut)
    assert seen.is_set()


def test_short_reads_are_gone_on_with(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(6):
        disk = Disk(monkeypatch, at, "short")
        module = on_meta()
        with (
            ReaderPool(threads=2, chunk_bytes=32768) as readers,
            Loader(saved.folder, readers=readers) as loader,
        ):
            saved.start(loader, module, "text").wait(30)
        assert disk.reads > at
        for name, value in module.text.state_dict().items():
            assert torch.equal(value, saved.values[f"text.{name}"])
        monkeypatch.undo()


def test_a_wrong_checksum(own: Saved, traces: Traces) -> None:
    sums = own.sums
    name = own.shards[1].name
    error = fails(own, traces, BrokenFile, checksums={**sums, name: "0" * 64})
    assert "SHA-256" in str(error)
    assert name in str(error)


@pytest.mark.parametrize("precision", WAYS)
def test_one_turned_bit_is_found(own: Saved, traces: Traces, precision: Any) -> None:
    """Also one that lies in the tensors of the other component."""
    sums = own.sums
    with own.shards[0].open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    for part in own.parts:
        fails(own, traces, BrokenFile, part=part, checksums=sums, precision=precision)


@pytest.mark.parametrize("precision", WAYS)
def test_right_checksums_with_components_beside_each_other(saved: Saved, precision: Any) -> None:
    module = on_meta()
    with Loader(saved.folder, checksums=saved.sums, staging_bytes=65536) as loader:
        loads = [saved.start(loader, module, part, precision=precision) for part in saved.parts]
        for load in loads:
            load.wait(30)
    assert not any(tensor.is_meta for tensor in module.state_dict().values())


def test_a_component_hashes_itself_when_the_other_gave_up(
    saved: Saved, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = on_meta()
    started, go_on = threading.Event(), threading.Event()

    def hold(progress: LoadProgress) -> None:
        if progress.component == "text":
            started.set()
            go_on.wait(30)

    with Loader(
        saved.folder, checksums=saved.sums, ledger=traces.ledger, on_progress=hold
    ) as loader:
        text = saved.start(loader, module, "text", precision=Precision.FP32)
        assert started.wait(30)
        vision = saved.start(loader, module, "vision", precision=Precision.FP32)
        canceller = threading.Thread(target=text.cancel)
        canceller.start()
        go_on.set()
        canceller.join(30)
        vision.wait(30)
        with pytest.raises(ReleasedError):
            text.wait()
    assert traces.ledger.used("host") == vision.nbytes
    assert not module.vision.up.weight.is_meta
    assert module.text.up.weight.is_meta


@pytest.mark.parametrize("precision", WAYS)
def test_no_memory_at_the_nth_allocation(
    saved: Saved, traces: Traces, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    real, real_empty = memory.host_buffer, QuantizedLinear.empty
    failed = True
    number = 0
    while failed:
        left = number
        failed = False

        def counted(make: Callable[..., Any], *args: Any, **named: Any) -> Any:
            nonlocal left, failed
            left -= 1
            if left == -1:
                failed = True
                raise OSError(12, "Cannot allocate memory")
            return make(*args, **named)

        with monkeypatch.context() as patch:
            patch.setattr(memory, "host_buffer", lambda *a, c=counted, **k: c(real, *a, **k))
            patch.setattr(
                QuantizedLinear, "empty", lambda *a, c=counted, **k: c(real_empty, *a, **k)
            )
            module = on_meta()
            with Loader(saved.folder, ledger=traces.ledger) as loader:
                try:
                    saved.start(loader, module, "text", precision=precision).wait(30)
                except BudgetExceeded as error:
                    assert "Cannot allocate memory" in str(error)  # noqa: PT017
                    traces.check_nothing_left(module, saved)
        number += 1
    assert number > 2


@pytest.mark.parametrize("precision", [None, Precision.INT8])
def test_an_exception_in_convert(saved: Saved, traces: Traces, precision: Any) -> None:
    def at_once(name: str, stored: torch.Tensor) -> torch.Tensor:
        raise InputError("no such layout", where=name)

    def later(name: str, stored: torch.Tensor) -> torch.Tensor:
        if not stored.is_meta and name == "text.up.weight":
            raise InputError("no such layout", where=name)
        return stored.clone()

    def other_shape(name: str, stored: torch.Tensor) -> torch.Tensor:
        return stored.clone() if stored.is_meta else stored[:1].clone()

    for convert in (at_once, later, other_shape):
        fails(saved, traces, InputError, convert=convert, precision=precision)


def test_an_exception_of_the_listener(saved: Saved, traces: Traces) -> None:
    def refuse(progress: LoadProgress) -> None:
        if progress.finished:
            raise OctavoError("the listener is gone")

    fails(saved, traces, OctavoError, on_progress=refuse, precision=Precision.INT8)


@pytest.mark.parametrize("precision", WAYS)
@pytest.mark.parametrize("within", [True, False], ids=["by the listener", "from outside"])
def test_cancelled_in_the_middle(
    saved: Saved, traces: Traces, precision: Any, within: bool
) -> None:
    module = on_meta()
    at, go_on = threading.Event(), threading.Event()
    loads: list[Any] = []

    def listen(progress: LoadProgress) -> None:
        at.set()
        go_on.wait(30)
        if within:
            loads[0].cancel()

    with Loader(
        saved.folder, ledger=traces.ledger, on_progress=listen, staging_bytes=65536
    ) as loader:
        loads.append(saved.start(loader, module, "text", precision=precision))
        assert at.wait(30)
        with pytest.raises(TimeoutError):
            loads[0].wait(0)
        go_on.set()
        if not within:
            loads[0].cancel()
            assert loads[0].done
            # Whoever came first: a load that was through is there as a whole.
        try:
            loads[0].wait(30)
        except ReleasedError as error:
            assert "cancelled" in str(error)  # noqa: PT017
            traces.check_nothing_left_but_pools(module)
        else:
            assert not within
            loads[0].unload()
    traces.check_nothing_left(module, saved)


def test_closing_the_loader_or_the_pool_ends_what_is_under_way(
    saved: Saved, traces: Traces
) -> None:
    for close_pool_first in (True, False):
        module = on_meta()
        readers = ReaderPool(threads=1, chunk_bytes=4096)
        loader = Loader(saved.folder, ledger=traces.ledger, readers=readers)
        load = saved.start(loader, module, "text", precision=Precision.FP32)
        if close_pool_first:
            readers.close()
        loader.close()
        readers.close()
        try:
            load.wait(30)
        except ReleasedError:
            pass
        else:
            load.unload()
        traces.check_nothing_left(module, saved)
        with pytest.raises(ReleasedError):
            readers.read(saved.shards[0], 0, torch.empty(8, dtype=torch.uint8))


def test_a_failed_component_leaves_the_other_alone(own: Saved, traces: Traces) -> None:
    module = on_meta()

    def convert(name: str, stored: torch.Tensor) -> torch.Tensor:
        if name.startswith("vision") and not stored.is_meta:
            raise InputError("no such layout", where=name)
        return stored.clone() if name.startswith("vision") else stored

    with Loader(own.folder, ledger=traces.ledger) as loader:
        text = own.start(loader, module, "text", convert=convert)
        vision = own.start(loader, module, "vision", convert=convert)
        with pytest.raises(InputError):
            vision.wait(30)
        text.wait(30)
        again = own.start(loader, module, "vision")
        again.wait(30)
    assert torch.equal(module.vision.up.weight, own.values["vision.up.weight"])
    assert traces.ledger.used("host") == text.nbytes + again.nbytes
