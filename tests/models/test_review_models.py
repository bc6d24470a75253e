"""What goes wrong around a model: odd settings, faults on the way, and many who ask at once."""

from __future__ import annotations

import json
import shutil
import signal
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import octavo  # noqa: E402
from octavo.errors import (  # noqa: E402
    BrokenFile,
    ConfigError,
    InputError,
    OctavoError,
    ReleasedError,
)
from octavo.hardware.spec import ComponentSpec  # noqa: E402
from octavo.models.component import Component, State  # noqa: E402
from octavo.models.generation import Chance  # noqa: E402
from octavo.models.model import Model  # noqa: E402
from octavo.models.streamed import Text, pieces  # noqa: E402
from octavo.requests import Completion, Finish, Message, Part, Request, Sampling  # noqa: E402
from octavo.types import Failure  # noqa: E402

Tiny = Callable[[str], Path]
WARM = Sampling(temperature=1.0, seed=3)


def _tokens(model: Model, sampling: Sampling | None = None, **options: Any) -> tuple[int, ...]:
    asked = Request.of("hi", sampling=sampling or Sampling(), **{"max_new_tokens": 6, **options})
    return next(model.generate([asked])).check().tokens


@pytest.fixture
def changed(tiny: Tiny, tmp_path: Path) -> Callable[..., str]:
    """A copy of dots.ocr's checkpoint with some values of one of its files changed."""

    def made(file: str, **values: Any) -> str:
        folder = tmp_path / "changed"
        shutil.copytree(tiny("dots.ocr"), folder)
        found = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(found | values))
        return str(folder)

    return made


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0, "num_return_sequences": 3},
        {"do_sample": True, "temperature": 0.7, "top_p": 0.5, "top_k": 3, "min_p": 0.3},
        {"return_dict_in_generate": True, "output_scores": True},
        {"stop_strings": ["a", "N"]},
        {"max_time": 1e-9, "max_length": 6, "max_new_tokens": 1, "min_new_tokens": 50},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"dola_layers": "low"},
        {"guidance_scale": 2.0},
        {"token_healing": True},
        {"watermarking_config": {"bias": 2.0}},
        {"repetition_penalty": 9.0},
    ],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.filterwarnings("ignore:.*generation flags:UserWarning")
def test_how_tokens_are_chosen_is_the_request_s(
    tiny: Tiny, changed: Callable[..., str], settings: dict[str, Any]
) -> None:
    with octavo.load(str(tiny("dots.ocr"))) as model:
        wanted = _tokens(model), _tokens(model, WARM)
    with octavo.load(changed("generation_config.json", **settings)) as model:
        assert (_tokens(model), _tokens(model, WARM)) == wanted


def test_what_a_model_may_say_stays_its_own(tiny: Tiny, changed: Callable[..., str]) -> None:
    with octavo.load(str(tiny("dots.ocr"))) as model:
        first = _tokens(model)[0]
    with octavo.load(changed("generation_config.json", suppress_tokens=[first])) as model:
        assert first not in _tokens(model)
        assert model.module.generation_config.suppress_tokens == [first]


@pytest.mark.parametrize("content", ["{", "[]", "", '{"cache_implementation": "nonsense"}'])
def test_damaged_settings_of_generation(changed: Callable[..., str], content: str) -> None:
    folder = changed("generation_config.json")
    (Path(folder) / "generation_config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        octavo.load(folder)
    assert folder in str(caught.value)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"num_attention_heads": 0}),
        ("config.json", {"hidden_size": "wide"}),
        ("config.json", {"rope_parameters": 3}),
        ("config.json", {"image_token_id": -1}),
        ("config.json", {"vision_config": {"num_attention_heads": 0}}),
        ("preprocessor_config.json", {"min_pixels": "few"}),
        ("preprocessor_config.json", {"patch_size": 3}),
        ("preprocessor_config.json", {"merge_size": 3}),
        ("generation_config.json", {"eos_token_id": {}}),
    ],
    ids=str,
)
def test_values_that_no_model_has(changed: Callable[..., str], file: str, values: Any) -> None:
    with pytest.raises(InputError) as caught:
        octavo.load(changed(file, **values))
    assert caught.value.where


def test_a_device_that_is_not_there(tiny: Tiny) -> None:
    for device in ("foo", "xla", "meta"):
        with pytest.raises(ConfigError, match="no device"):
            octavo.load(str(tiny("dots.ocr")), device=device)


def test_a_seed_leaves_other_random_numbers_alone(tiny: Tiny) -> None:
    with octavo.load(str(tiny("dots.ocr"))) as model:
        torch.manual_seed(5)
        wanted = torch.rand(3)
        torch.manual_seed(5)
        tokens = _tokens(model, WARM)
        assert torch.equal(torch.rand(3), wanted)
        torch.manual_seed(99)
        assert _tokens(model, WARM) == tokens
        free = {_tokens(model, Sampling(temperature=5.0)) for _ in range(4)}
        assert len(free) > 1


def test_draws_follow_the_probabilities() -> None:
    torch.manual_seed(0)
    scores = torch.randn(1, 12)
    scores[0, 4] = float("-inf")
    choice = Sampling(temperature=0.7, top_k=8, top_p=0.95, seed=1)
    draw = Chance(choice)
    none = torch.zeros(1, 1, dtype=torch.long)
    draws = torch.stack([draw(none, scores)[0].argmax() for _ in range(8000)])
    shares = torch.bincount(draws, minlength=12) / len(draws)
    # As sampling is defined: the k likeliest, of those the smallest set that reaches p.
    p = (scores[0].double() / 0.7).softmax(0)
    p[p < p.topk(8).values[-1]] = 0
    p /= p.sum()
    ranked, order = p.sort(descending=True)
    ranked[ranked.cumsum(0) - ranked >= 0.95] = 0
    p = torch.zeros(12, dtype=torch.float64).scatter(0, order, ranked / ranked.sum())
    assert torch.equal(shares > 0, p > 0)
    assert (shares - p).abs().max() < 0.02
    cold = Chance(Sampling(temperature=1e-30, seed=1))
    assert int(cold(none, scores).argmax()) == int(scores.argmax())


def test_a_text_that_cannot_be_decoded_is_the_request_s_fault(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Any, _tokens: Sequence[int]) -> str:
        raise ValueError("no such token")

    with octavo.load(str(tiny("dots.ocr"))) as model:
        with monkeypatch.context() as patch:
            patch.setattr(type(model.processor), "decode", broken)
            (done,) = model.generate([Request.of("hi", max_new_tokens=2)])
        assert done.failure == Failure("ValueError", "no such token")
        ended = threading.Event()

        def answer(_self: Any, _request: Request, _guard: Any) -> Completion:
            raise RuntimeError("broke")

        def stream() -> None:
            with pytest.raises(RuntimeError, match="broke"):
                list(model.stream(Request.of("hi")))
            ended.set()

        monkeypatch.setattr(Model, "_answer", answer)
        threading.Thread(target=stream, daemon=True).start()
        assert ended.wait(10)


def test_failures_keep_their_class(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    with octavo.load(str(tiny("dots.ocr"))) as model:
        with pytest.raises(BrokenFile, match=r"empty\.png"):
            model.ask(Part.image(tmp_path / "empty.png"))
        with pytest.raises(BrokenFile, match=r"empty\.png"):
            list(model.stream(Request.of(Part.image(tmp_path / "empty.png"))))
        with pytest.raises(InputError, match="not Unicode"):
            model.ask("caf\udce9")
    unheard_of = Completion("r", finish=Finish.ERROR, failure=Failure("KeyError", "x"))
    with pytest.raises(OctavoError) as caught:
        unheard_of.check()
    assert type(caught.value) is OctavoError


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sampling(stop=("",)),
        lambda: Sampling(stop="END"),  # type: ignore[arg-type]
        lambda: Sampling(seed=-1),
        lambda: Sampling(seed=2**70),
        lambda: Sampling(temperature=float("nan")),
        lambda: Sampling(temperature=float("inf")),
        lambda: Sampling(repetition_penalty=float("nan")),
        lambda: Message("robot", (Part.text("x"),)),  # type: ignore[arg-type]
        lambda: Request.of("x", max_new_tokens=2.5),  # type: ignore[arg-type]
    ],
)
def test_requests_that_mean_nothing(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError):
        make()


def test_labels_and_parts_that_cannot_be_compared(tiny: Tiny, picture: Any) -> None:
    shown = Part.image(picture)
    with octavo.load(str(tiny("clip"))) as model:
        assert set(model.classify(shown, ["{x}", "b"], template="a {} {y} {")) == {"{x}", "b"}
        for labels in ([], ["a", "a"]):
            with pytest.raises(ConfigError, match="each once"):
                model.classify(shown, labels)
        with pytest.raises(ConfigError, match="not audio"):
            model.embed([shown, Part.audio("a.wav")])
        with pytest.raises(InputError, match="not Unicode"):
            model.embed([Part.text("\udcff")])
        with pytest.raises(InputError, match="not Unicode"):
            model.classify(shown, ["\udcff"])


class _Ended:
    done = True

    def __init__(self, *failures: BaseException) -> None:
        self._failures = list(failures)

    def wait(self, timeout: float | None = None) -> None:
        del timeout
        if self._failures:
            raise self._failures.pop(0)

    def cancel(self) -> None:
        return


def _component(work: _Ended) -> Component:
    part = Component(ComponentSpec("vision", ()), lambda: work, precision=None, resident_nbytes=0)
    part.start()
    return part


def test_a_component_that_failed_says_so_before_anybody_needs_it() -> None:
    assert _component(_Ended(BrokenFile("cut short"))).state is State.FAILED
    interrupted = _component(_Ended(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        interrupted.need()
    assert interrupted.state is State.READY


def test_an_interrupted_wait_breaks_nothing(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from octavo.models.loading.opened import OpenedFile

    plain, gate = OpenedFile.read, threading.Event()
    main = threading.main_thread().ident
    assert main is not None

    def held_back(self: OpenedFile, *args: Any) -> None:
        assert gate.wait(20)
        plain(self, *args)

    monkeypatch.setattr(OpenedFile, "read", held_back)
    # A process that was started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with octavo.load(str(tiny("dots.ocr")), wait=False) as model:
        timer = threading.Timer(0.05, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                model.wait()
        finally:
            gate.set()
            signal.signal(signal.SIGINT, before)
        timer.join()
        assert _tokens(model)
        assert all(part.state is State.READY for part in model.components.values())


def test_text_in_pieces_is_the_whole_text() -> None:
    words = "Grüße, 東京, 🙂!" + "x" * 20
    rng = np.random.default_rng(0)
    noise = bytes(rng.integers(0, 256, 300, dtype=np.uint8)) + b"end"
    for content in (words.encode(), noise):
        decoded: list[int] = []

        def decode(tokens: Sequence[int], decoded: list[int] = decoded) -> str:
            decoded.append(len(tokens))
            return bytes(tokens).decode("utf-8", errors="replace")

        text = Text(decode)
        shown = [text.add(byte) for byte in content]
        assert shown[-1] == content.decode("utf-8", errors="replace")
        assert all(later.startswith(sooner) for sooner, later in pairwise(shown))
        assert max(decoded) < 70  # not all of it for every token


def test_nothing_of_a_stop_string_that_begins_the_answer_is_shown() -> None:
    def answer(guard: Any) -> Completion:
        for byte in b"stopping":
            guard.token(byte)
        return Completion("r", text="")

    assert not "".join(pieces(answer, lambda tokens: bytes(tokens).decode(), ("stopping",)))


def test_many_ask_one_model(tiny: Tiny) -> None:
    failed: list[BaseException] = []
    with octavo.load(str(tiny("dots.ocr"))) as model:
        greedy, warm = _tokens(model), _tokens(model, WARM)

        def ask() -> None:
            try:
                for _ in range(3):
                    assert (_tokens(model), _tokens(model, WARM)) == (greedy, warm)
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failed == []


def test_closing_while_others_ask(tiny: Tiny) -> None:
    ended: list[str] = []
    model = octavo.load(str(tiny("dots.ocr")))
    begun = threading.Barrier(5)

    def ask() -> None:
        begun.wait(20)
        while (done := next(model.generate([Request.of("hi", max_new_tokens=2)]))).failure is None:
            pass
        ended.append(done.failure.error)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait(20)
    model.close()
    for thread in threads:
        thread.join(20)
    assert ended == [ReleasedError.__name__] * 4
