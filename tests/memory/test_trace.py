"""Traces written and read back, cut short, broken, and written to a disk that is full."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from octavo.errors import BrokenFile, SourceNotFound
from octavo.memory.trace import Access, TraceWriter, read_trace, write_trace

ACCESS = Access("get", "layer.3", 4096, 0.25, "prefill")
LINE = '{"op": "get", "key": "a", "nbytes": 1}\n'

accesses = st.builds(
    Access,
    st.sampled_from(["get", "put", "delete"]),
    st.text(st.characters(codec="utf-8")),
    st.integers(0, 2**60),
    st.floats(0, allow_infinity=False),
    st.text(st.characters(codec="utf-8"), max_size=5),
)


@given(given_accesses=st.lists(accesses, max_size=10))
@settings(deadline=None)
def test_what_is_written_is_read(
    given_accesses: list[Access], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    write_trace(path, given_accesses)
    assert list(read_trace(path)) == given_accesses


def test_a_line_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_trace(path, [ACCESS])
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "op": "get",
        "key": "layer.3",
        "nbytes": 4096,
        "cost": 0.25,
        "phase": "prefill",
    }


def test_cost_and_phase_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("\n" + LINE)
    assert list(read_trace(path)) == [Access("get", "a", 1, 1.0, "")]


def test_a_writer_adds_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for _ in range(2):
        with TraceWriter(path) as writer:
            writer.record(ACCESS)
    assert list(read_trace(path)) == [ACCESS, ACCESS]
    assert writer.error is None


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    start = threading.Barrier(4)

    def write(name: int) -> None:
        start.wait()
        for number in range(300):
            writer.record(Access("put", f"{name}.{number}", number))

    with TraceWriter(path) as writer:
        threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [access.key for access in read_trace(path)]
    assert sorted(found) == sorted(f"{name}.{number}" for name in range(4) for number in range(300))


def test_a_closed_writer_records_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    writer = TraceWriter(path)
    writer.close()
    writer.record(ACCESS)
    writer.close()
    assert path.read_text() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_ends_the_recording_and_nothing_else() -> None:
    with TraceWriter(Path("/dev/full")) as writer:
        for _ in range(2000):  # more than a buffer
            writer.record(ACCESS)
        assert writer.error is not None
    assert writer.error.errno == 28


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_disk_found_full_at_the_end_is_told() -> None:
    with TraceWriter(Path("/dev/full")) as writer:
        writer.record(ACCESS)
    assert writer.error is not None


@pytest.mark.parametrize("cut", [1, 10, len(LINE) - 2])
def test_a_last_line_cut_short_is_left_out(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(LINE + LINE[:cut])
    assert len(list(read_trace(path))) == 1


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[" * 100_000,
        '{"op": "get", "key": "a", "nbytes": 1e999}',
        '{"op": "get", "key": "a", "nbytes": 1, "cost": Infinity}',
        "[]",
        "3",
        '{"op": "get", "key": "a"}',
        '{"op": "look", "key": "a", "nbytes": 1}',
        '{"op": "get", "key": "a", "nbytes": -1}',
        '{"op": "get", "key": "a", "nbytes": "many"}',
        '{"op": "get", "key": "a", "nbytes": 1, "cost": -1}',
        '{"op": "get", "key": "a", "nbytes": 1, "cost": NaN}',
        '{"op": ["get"], "key": "a", "nbytes": 1}',
    ],
)
def test_a_broken_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(f"{LINE}{line}\n{LINE}")
    with pytest.raises(BrokenFile, match="line 2 is not an access") as caught:
        list(read_trace(path))
    assert caught.value.where == str(path)
    assert '"op": "get"' in str(caught.value.next_step)


def test_bytes_that_are_no_text_are_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(BrokenFile, match="line 1"):
        list(read_trace(path))


def test_there_is_no_trace(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(SourceNotFound, match="no such trace"):
            list(read_trace(path))


def test_a_key_that_is_no_unicode_can_be_recorded(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with TraceWriter(path) as trace:
        trace.record(Access("get", "broken \ud800 key", 1))
        assert trace.error is None
    assert [access.nbytes for access in read_trace(path)] == [1]
