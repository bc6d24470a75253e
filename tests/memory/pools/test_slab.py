from __future__ import annotations

import errno

import psutil
import pytest
import torch

from octavo.errors import BudgetExceeded, ReleasedError
from octavo.memory.buffers import PAGE, holders_of
from octavo.memory.ledger import Ledger
from octavo.memory.pools.slab import Slab
from tests.memory.pools.faults import MIB, counted, fail_at, ledger

CPU = torch.device("cpu")


def open_slab(books: Ledger, nbytes: int = MIB) -> Slab:
    return Slab(books, place="host", kind="staging", owner="test", nbytes=nbytes, device=CPU)


def test_counts_whole_pages_from_before_the_allocation_until_after_it_is_freed() -> None:
    books = ledger()
    slab = open_slab(books, MIB + 1)
    assert slab.data.numel() == counted(books, "host") == MIB + PAGE
    assert slab.data.data_ptr() % PAGE == 0
    assert slab.free()
    assert slab.free(), "harmless when repeated"
    assert counted(books, "host") == 0
    with pytest.raises(ReleasedError):
        _ = slab.data


@pytest.mark.parametrize("nbytes", [1, PAGE, 300_000])
def test_starts_on_a_page_at_any_size(nbytes: int) -> None:
    slabs = [open_slab(ledger(), nbytes) for _ in range(5)]
    assert [slab.data.data_ptr() % PAGE for slab in slabs] == [0] * 5
    assert all(slab.nbytes == -(-nbytes // PAGE) * PAGE == slab.data.numel() for slab in slabs)


def test_goes_back_to_the_system() -> None:
    books = ledger(host=512 * MIB)
    process = psutil.Process()
    before = process.memory_info().rss
    slab = open_slab(books, 256 * MIB)
    slab.data.fill_(1)
    assert process.memory_info().rss - before > 200 * MIB
    slab.free()
    assert process.memory_info().rss - before < 50 * MIB


def test_stays_while_others_use_it_and_is_counted_until_then() -> None:
    books = ledger(host=MIB)
    slab = open_slab(books)
    piece = slab.piece(PAGE, 16)
    assert slab.held
    assert not slab.free()
    slab.retire(books)
    assert counted(books, "host") == MIB
    with pytest.raises(BudgetExceeded):
        open_slab(books)
    del piece
    again = open_slab(books)
    assert counted(books, "host") == MIB
    again.free()
    assert counted(books, "host") == 0
    assert books._reclaimers("host") == [], "the ledger does not keep it"


def test_a_piece_is_the_same_memory_with_holders_of_its_own() -> None:
    slab = open_slab(ledger())
    one, other = slab.piece(0, 256), slab.piece(256, 256)
    view = one.view(torch.bfloat16)
    assert (holders_of(one), holders_of(other)) == (2, 1)
    view.fill_(-1.5)
    assert slab.data[:256].view(torch.bfloat16).eq(-1.5).all()
    assert one.untyped_storage().nbytes() == 256


def test_made_in_inference_mode_it_can_be_written_outside() -> None:
    with torch.inference_mode():
        slab = open_slab(ledger())
        piece = slab.piece(0, 8)
    slab.data.fill_(3)
    piece[0] = 4
    assert slab.data[:2].tolist() == [4, 3]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_runs_out_is_a_budget_error_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    books = ledger()
    fail_at(monkeypatch, 1, error)
    with pytest.raises(BudgetExceeded) as raised:
        open_slab(books)
    assert raised.value.__cause__ is error
    assert "lower the host budget" in str(raised.value)
    assert counted(books, "host") == 0


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OSError(errno.EPERM, "Operation not permitted"),
        KeyboardInterrupt(),
    ],
)
def test_other_errors_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    books = ledger()
    fail_at(monkeypatch, 1, error)
    with pytest.raises(type(error)) as raised:
        open_slab(books)
    assert raised.value is error
    assert counted(books, "host") == 0


def test_nothing_is_allocated_without_a_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fail_at(monkeypatch, 0, MemoryError())
    with pytest.raises(BudgetExceeded):
        open_slab(ledger(host=MIB - 1))
    assert calls() == 0
