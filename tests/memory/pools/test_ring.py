from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from octavo.errors import BudgetExceeded, ConfigError, CorruptValue, ReleasedError, TierError
from octavo.memory.ledger import Ledger
from octavo.memory.pools import Part, WeightRing, slots
from tests.memory.pools.faults import counted, ledger
from tests.memory.pools.test_staging import Copying

LAYOUT = {"w": Part(0, (4, 5), torch.float32), "b": Part(80, (5,), torch.bfloat16)}


@pytest.fixture
def no_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a notification wakes those who wait."""
    monkeypatch.setattr(slots, "_LOOK_S", 3600.0)


def ring(books: Ledger | None = None, slots: int = 3, **more: bool) -> WeightRing:
    return WeightRing(books or ledger(), slots=slots, slot_nbytes=90, **more)


def layer(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(number)
    return torch.randn(4, 5, generator=source), torch.randn(5, generator=source).bfloat16()


def fill(to: WeightRing, number: int) -> None:
    with to.acquire() as filling:
        views = filling.views(LAYOUT)
        views["w"].copy_(layer(number)[0])
        views["b"].copy_(layer(number)[1])
        filling.publish(number)


@pytest.mark.usefixtures("no_looking")
def test_streams_layers_in_order_and_exactly() -> None:
    books = ledger()
    with ring(books) as tested, ThreadPoolExecutor(1) as threads:
        nbytes = counted(books)
        assert books.state("device").by_kind["weights"] == nbytes == tested.stats().nbytes
        order = [number % 7 for number in range(200)]
        loading = threads.submit(lambda: [fill(tested, number) for number in order])
        for number in order:
            with tested.take(number) as loaded:
                views = loaded.views(LAYOUT)
                assert torch.equal(views["w"], layer(number)[0])
                assert torch.equal(views["b"], layer(number)[1])
                del views
        loading.result()
        assert counted(books) == nbytes
        assert tested.stats().free == 3
        assert tested.stats().peak <= 3
    assert counted(books) == 0


@pytest.mark.usefixtures("no_looking")
def test_loaders_at_once_keep_the_order_of_acquire() -> None:
    with ring(slots=4) as tested:
        first, second = tested.acquire(), tested.acquire()
        second.buffer.fill_(2)
        second.publish("second")
        with ThreadPoolExecutor(1) as threads:
            taking = threads.submit(tested.take, "first")
            assert not taking.done()
            first.buffer.fill_(1)
            first.publish("first")
            with taking.result() as loaded:
                assert loaded.buffer.eq(1).all()
        with tested.take("second") as loaded:
            assert loaded.buffer.eq(2).all()


def test_several_can_be_in_use_and_go_back_in_any_order() -> None:
    with ring(slots=2) as tested:
        fill(tested, 0)
        fill(tested, 1)
        zero, one = tested.take(0), tested.take(1)
        with pytest.raises(BudgetExceeded, match="held by model 2"):
            tested.acquire(timeout=0.01)
        one.release()
        fill(tested, 2)
        assert torch.equal(zero.views(LAYOUT)["w"], layer(0)[0])
        zero.release()
        tested.take(2).release()


def test_another_order_than_that_of_loading_is_an_error() -> None:
    with ring() as tested:
        fill(tested, 0)
        with pytest.raises(ConfigError, match="the next weights are 0, not 1"):
            tested.take(1)
        tested.take(0).release()


def test_use_after_publish_and_after_release_raises() -> None:
    with ring() as tested:
        filling = tested.acquire()
        filling.publish(0)
        for use in (lambda: filling.buffer, lambda: filling.publish(0)):
            with pytest.raises(ReleasedError):
                use()
        loaded = tested.take(0)
        loaded.release()
        loaded.release()
        with pytest.raises(ReleasedError):
            loaded.views(LAYOUT)
        assert tested.stats().free == 3


def test_an_error_of_the_loader_reaches_the_consumer_in_its_turn() -> None:
    with ring() as tested:
        fill(tested, 0)
        broken = CorruptValue("bad bytes", next_step="fetch the file again")

        def load() -> None:
            with tested.acquire():
                raise broken

        with pytest.raises(CorruptValue):
            load()
        fill(tested, 2)
        tested.take(0).release()
        with pytest.raises(TierError, match="bad bytes") as raised:
            tested.take(1)
        assert raised.value.__cause__ is broken
        assert raised.value.next_step == "fetch the file again"
        tested.take(2).release()
        assert tested.stats().free == 3


def test_the_end_of_a_loader_reaches_one_who_waits() -> None:
    with ring() as tested, ThreadPoolExecutor(1) as threads:
        fill(tested, 0)
        tested.fail(OSError("disk gone"))
        tested.take(0).release()
        with pytest.raises(TierError, match="disk gone"):
            tested.take(1)
        fill(tested, 1)
        tested.take(1).release()
        waiting = threads.submit(tested.take, 2)
        tested.fail(OSError("gone again"))
        with pytest.raises(TierError, match="gone again"):
            waiting.result()


def test_a_slot_left_or_dropped_without_publishing_is_an_error() -> None:
    with ring() as tested, ThreadPoolExecutor(1) as threads:
        with tested.acquire():
            pass
        with pytest.raises(TierError, match="without publishing"):
            tested.take(0)
        held = [tested.acquire(owner="reader")]
        waiting = threads.submit(tested.take, 0)
        held.clear()
        gc.collect()
        with pytest.raises(TierError, match="dropped a slot"):
            waiting.result()
        assert tested.stats().leaked == {"reader": 1}
        assert tested.stats().free == 3


def test_weights_dropped_without_release_come_back() -> None:
    with ring(slots=1) as tested:
        fill(tested, 0)
        tested.take(0)
        gc.collect()
        fill(tested, 1)
        tested.take(1).release()
        assert tested.stats().leaked == {"model": 1}


def test_a_wait_ends_with_its_timeout() -> None:
    with ring() as tested, pytest.raises(TierError, match="not loaded in"):
        tested.take(0, timeout=0.01)


@pytest.mark.usefixtures("no_looking")
def test_close_wakes_loaders_and_consumers() -> None:
    books = ledger()
    tested = ring(books, slots=1)
    with ThreadPoolExecutor(4) as threads:
        held = tested.acquire()
        waiting = [threads.submit(tested.acquire) for _ in range(2)]
        waiting += [threads.submit(tested.take, 0) for _ in range(2)]
        tested.close()
        for one in waiting:
            with pytest.raises(ReleasedError):
                one.result()
    with pytest.raises(ReleasedError):
        held.publish(0)
    assert counted(books) == 0


def test_work_of_the_accelerator_is_waited_for_on_both_sides() -> None:
    with ring(slots=1) as tested:
        copied, computed = Copying(), Copying()
        tested.acquire().publish(0, after=copied)
        assert copied.waits == []
        loaded = tested.take(0)
        assert copied.waits == ["host"], "main memory is read by the host"
        loaded.release(after=computed)
        assert computed.waits == []
        tested.acquire().publish(1)
        assert computed.waits == ["host"]
        tested.take(1).release()
        tested.device = torch.device("cuda")
        tested.acquire().publish(2, after=copied)
        tested.take(2).release()
        assert copied.waits == ["host", "stream"], "on a device the stream waits"
        tested.acquire().publish(3, after=Copying(RuntimeError("CUDA error")))
        tested.device = torch.device("cpu")
        with pytest.raises(RuntimeError, match="CUDA error"):
            tested.take(3)
        assert tested.stats().free == 1


def test_poison_and_stale_views() -> None:
    with ring(slots=1, poison=True) as tested:
        fill(tested, 0)
        loaded = tested.take(0)
        stale = loaded.views(LAYOUT)
        loaded.release()
        assert stale["w"].isnan().all()
        assert tested.stats().stale == 1


def test_loaders_and_one_consumer_at_random() -> None:
    count, lock, order = 200, threading.Lock(), iter(range(200))
    with ring(slots=4) as tested:

        def load() -> None:
            while True:
                with lock:
                    number = next(order, None)
                    if number is None:
                        return
                    filling = tested.acquire()
                filling.buffer.fill_(number)
                filling.publish(number)

        with ThreadPoolExecutor(4) as threads:
            loading = [threads.submit(load) for _ in range(4)]
            for number in range(count):
                with tested.take(number) as loaded:
                    assert loaded.buffer.eq(number).all()
            for one in loading:
                one.result()
        assert tested.stats().free == 4
