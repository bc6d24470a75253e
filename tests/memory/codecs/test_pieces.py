from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.memory.codecs.pieces import read, read_words, spans, typed, written


@given(data=st.data())
def test_reads_any_range_of_any_strides(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=0, max_size=4))
    order = data.draw(st.permutations(range(len(shape))))
    base = torch.arange(int(torch.tensor(shape).prod()) if shape else 1).view(shape)
    tensor = base.permute(order) if shape else base
    if tensor.dim() and data.draw(st.booleans()):
        tensor = tensor[::2]
    start = data.draw(st.integers(0, tensor.numel()))
    stop = data.draw(st.integers(start, tensor.numel()))
    assert read(tensor, start, stop).tolist() == tensor.reshape(-1)[start:stop].tolist()


def test_contiguous_memory_is_not_copied() -> None:
    tensor = torch.arange(24).view(2, 3, 4)
    assert read(tensor, 5, 9).data_ptr() == tensor.data_ptr() + 5 * 8


def test_conjugation_that_is_still_to_be_done_is_done() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j]).conj()
    assert tensor.is_conj()
    assert read(tensor, 0, 2).tolist() == [1 - 2j, 3 + 4j]
    assert read_words(tensor, 1, 2).numel() == 2


def test_spans_cover_all_once() -> None:
    assert list(spans(10, 4)) == [(0, 4), (4, 8), (8, 10)]
    assert list(spans(0, 4)) == []


@pytest.mark.parametrize("at", [0, 1, 3, 4])
def test_numbers_begin_anywhere(at: int) -> None:
    data_b = torch.arange(at + 8, dtype=torch.uint8)
    expected = int.from_bytes(bytes(range(at, at + 4)), "little")
    assert typed(data_b[at:], torch.int32)[0].item() == expected


def test_writing_to_the_cpu_is_in_place_and_to_elsewhere_is_copied() -> None:
    target = torch.zeros(3)
    with written(target) as piece:
        assert piece is target
    with written(torch.empty(3, device="meta")) as piece:
        assert piece.device.type == "cpu"
