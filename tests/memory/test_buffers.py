"""Buffers: where they start, how they end, and that the system gets them back."""

from __future__ import annotations

import gc
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.memory import buffers
from octavo.memory.buffers import (
    HUGE_PAGE,
    MAPPED_FROM,
    PAGE,
    holders_of,
    host_buffer,
    memory_of,
    padded,
    resident,
    whole_pages,
)

MIB = 1 << 20


@given(st.integers(0, 4 * MAPPED_FROM))
@settings(deadline=None)
def test_starts_on_a_page_and_takes_what_padded_says(nbytes: int) -> None:
    data_b = host_buffer(nbytes)
    assert data_b.shape == (nbytes,)
    assert data_b.dtype == torch.uint8
    assert data_b.untyped_storage().nbytes() == padded(nbytes)
    if nbytes >= MAPPED_FROM:
        assert data_b.data_ptr() % PAGE == 0
        assert padded(nbytes) % PAGE == 0
        assert 0 <= padded(nbytes) - nbytes < PAGE
    else:
        assert padded(nbytes) == nbytes


@given(st.integers(MAPPED_FROM, 2 * MAPPED_FROM))
@settings(deadline=None)
def test_every_mapped_buffer_can_be_widened(nbytes: int) -> None:
    data_b = host_buffer(nbytes)
    whole_b = whole_pages(data_b)
    assert whole_b is not None
    assert whole_b.numel() == padded(nbytes)
    assert whole_b.data_ptr() == data_b.data_ptr()
    whole_b.fill_(7)
    assert int(data_b[-1]) == 7


def test_slices_widen_only_inside_their_storage() -> None:
    data_b = host_buffer(MAPPED_FROM + 100)
    last_b = data_b[MAPPED_FROM:]
    widened_b = whole_pages(last_b)
    assert widened_b is not None
    assert widened_b.numel() == PAGE
    assert whole_pages(data_b[1:]) is None, "does not start on a page"
    assert whole_pages(data_b[PAGE : 2 * PAGE]) is not None
    assert whole_pages(data_b[:0]) is None, "empty"
    assert whole_pages(data_b[1:PAGE]) is None, "even where its storage goes on"


def test_storage_that_ends_inside_a_page_is_not_widened() -> None:
    private = {} if sys.platform == "win32" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}
    area = mmap.mmap(-1, 2 * PAGE, **private)
    short_b = torch.frombuffer(area, dtype=torch.uint8, count=PAGE + 100)
    assert short_b.data_ptr() % PAGE == 0
    assert whole_pages(short_b) is None
    assert whole_pages(short_b[PAGE:]) is None
    assert whole_pages(short_b[:100]) is not None


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="needs direct I/O")
def test_a_disk_reads_into_it_directly(tmp_path: Path) -> None:
    nbytes = MAPPED_FROM + 100
    content = np.random.default_rng(1).integers(0, 256, padded(nbytes), dtype=np.uint8)
    (tmp_path / "file").write_bytes(content.tobytes())
    data_b = host_buffer(nbytes)
    whole_b = whole_pages(data_b)
    assert whole_b is not None
    try:
        file = os.open(tmp_path / "file", os.O_RDONLY | os.O_DIRECT)
    except OSError:
        pytest.skip("no direct I/O on this file system")
    try:
        assert os.readv(file, [memory_of(whole_b)]) == padded(nbytes)
    finally:
        os.close(file)
    assert np.array_equal(data_b.numpy(), content[:nbytes])


def test_memory_is_shared_and_writable() -> None:
    for nbytes in (100, MAPPED_FROM):
        data_b = host_buffer(nbytes).fill_(1)
        view = memory_of(data_b)
        assert view.nbytes == nbytes
        view[3] = 9
        assert int(data_b[3]) == 9


def in_process() -> int:
    return int(psutil.Process().memory_info().rss)


def test_the_system_gets_it_back_with_the_last_view() -> None:
    gc.collect()
    before = in_process()
    data_b = host_buffer(64 * MIB).fill_(1)
    view_b = data_b[5:100].view(5, 19)
    assert in_process() - before > 60 * MIB
    del data_b
    assert in_process() - before > 60 * MIB, "a view still holds it"
    assert int(view_b[0, 0]) == 1
    del view_b
    assert in_process() - before < 4 * MIB


def test_many_buffers_leave_nothing_behind() -> None:
    sizes = [MAPPED_FROM + step * 10_007 for step in range(20)]
    for nbytes in sizes:
        host_buffer(nbytes).fill_(1)
    gc.collect()
    before = in_process()
    for nbytes in sizes * 5:
        host_buffer(nbytes).fill_(1)
    assert in_process() - before < 4 * MIB


@pytest.mark.parametrize("nbytes", [100, MAPPED_FROM])
def test_counts_holders(nbytes: int) -> None:
    data_b = host_buffer(nbytes)
    assert holders_of(data_b) == holders_of(data_b)
    alone = torch.zeros(8)
    assert holders_of(alone) == 1
    row = alone[2:4]
    assert holders_of(alone) == holders_of(row) == 2
    reshaped = alone.view(2, 4)
    same = alone
    assert holders_of(same) == 3, "another name is no other holder"
    copy = alone.clone()
    assert holders_of(alone) == 3
    assert holders_of(copy) == 1
    del row, reshaped
    assert holders_of(alone) == 1


def test_autograd_counts_where_it_made_a_tensor_of_its_own() -> None:
    """It keeps its own tensor of an output; of an input it keeps the very tensor it was given."""
    weight = torch.ones(3, requires_grad=True)
    output = weight.exp()
    assert holders_of(output) == 2
    value = torch.ones(3)
    product = weight * value
    assert holders_of(value) == 1
    del product


def test_pinned_needs_cuda() -> None:
    if torch.cuda.is_available():
        assert host_buffer(MAPPED_FROM, pinned=True).is_pinned()
    else:
        with pytest.raises(RuntimeError):
            host_buffer(MAPPED_FROM, pinned=True)


@pytest.mark.parametrize(
    ("nbytes", "taken", "expected"),
    [
        (100, 100, 100),
        (MAPPED_FROM, MAPPED_FROM, MAPPED_FROM),
        (5 * HUGE_PAGE, 5 * HUGE_PAGE, 5 * HUGE_PAGE),
        (5 * HUGE_PAGE, HUGE_PAGE + 1, 2 * HUGE_PAGE),  # what was touched last may be there whole
        (5 * HUGE_PAGE + PAGE, 5 * HUGE_PAGE + 1, 5 * HUGE_PAGE + PAGE),
    ],
)
def test_what_the_front_of_a_buffer_may_hold(nbytes: int, taken: int, expected: int) -> None:
    assert resident(host_buffer(nbytes)[:taken]) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="counts resident pages as Linux does")
def test_a_half_written_buffer_holds_no_more_than_said() -> None:
    before = in_process()
    buffer = host_buffer(64 * HUGE_PAGE)
    front = buffer[: 20 * HUGE_PAGE + 5]
    front.fill_(1)
    assert 20 * HUGE_PAGE <= in_process() - before <= resident(front) + 8 * 1024 * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_blocks_are_used_again_until_the_end() -> None:
    """In a process of its own: it is a setting of the process."""
    code = """
import psutil, resource, torch
from octavo.memory.buffers import return_freed_memory, reusing_freed_memory
assert return_freed_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def many():
    before = faults()
    for _ in range(50):
        torch.ones(2_000_000)
    return faults() - before
many()
fresh = many()
with reusing_freed_memory():
    many()
    again = many()
    held = psutil.Process().memory_info().rss
assert again < fresh / 10, (fresh, again)
assert psutil.Process().memory_info().rss < held - 7_000_000, held
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_glibc", lambda: None)
    assert not buffers.return_freed_memory()
    with buffers.reusing_freed_memory():
        assert torch.ones(3).sum() == 3
