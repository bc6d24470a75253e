"""Whisper (Radford et al. 2022, https://arxiv.org/abs/2212.04356), on faster-whisper.

A checkpoint is a folder that CTranslate2 has converted (``model.bin``), or one of transformers,
which is converted once into Octavo's own folder. Nothing is downloaded: the detector of speech
(Silero) is in faster-whisper's package.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import (
    BrokenFile,
    ConfigError,
    InputError,
    MissingDependency,
    SourceNotFound,
)
from octavo.hardware.spec import ModelSpec, Precision
from octavo.models.checkpoint import Checkpoint
from octavo.models.families._ctranslate2 import BINARY, read_binary, spec_name
from octavo.models.families._whisper_convert import converted
from octavo.models.families._whisper_spec import (
    RATE,
    SPEC,
    config_of,
    describe_binary,
    describe_transformers,
)
from octavo.models.family import Family, Prepared, Processor, Task
from octavo.requests import InputMode, MediaReader, Request, Segment, Transcript

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TOKENIZER: Final = "tokenizer.json"
_PREPROCESSOR: Final = "preprocessor_config.json"
_VOCABULARIES: Final = ("vocabulary.json", "vocabulary.txt")
_INSTALL: Final = "pip install 'octavo[models]'"
_COMPUTE: Final = {
    Precision.FP32: "float32", Precision.FP16: "float16", Precision.BF16: "bfloat16",
    Precision.INT8: "int8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listening:
    """How speech is turned into words.

    Attributes:
        language: ISO 639-1 code; None finds out from the first 30 seconds of speech.
        translate: English text, whatever is spoken.
        beams: of the search; 1 is greedy.
        prompt: words that are likely to come (names), or the style of writing.
        find_speech: only what the detector takes for speech is transcribed, so that silence and
            noise become no words; a whisper or a song may need this off.
    """

    language: str | None = None
    translate: bool = False
    beams: int = 5
    prompt: str | None = None
    find_speech: bool = True

    def __post_init__(self) -> None:
        if self.beams < 1:
            raise ConfigError("beams must be at least 1", where=f"beams {self.beams}")


class Whisper(Family):
    """Whisper of any size. CTranslate2 reads and holds the weights; ``build`` returns a ready
    ``faster_whisper.WhisperModel``."""

    name = "whisper"
    model_types = frozenset({"whisper"})
    tasks = frozenset({Task.TRANSCRIBE})
    modes = frozenset({InputMode.SPEECH})
    loads_itself = True

    def recognizes(self, checkpoint: Checkpoint) -> bool:
        """By ``model_type``; CTranslate2's ``config.json`` has none, its ``model.bin`` a name."""
        if checkpoint.model_type:
            return checkpoint.model_type in self.model_types
        return spec_name(checkpoint) == SPEC

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        if checkpoint.has(BINARY):
            return describe_binary(self, checkpoint)
        return describe_transformers(self, checkpoint)

    def open(self, checkpoint: Checkpoint, *, precision: Precision | None, device: str) -> Any:
        return self.build(checkpoint, precision, device=device)

    def build(
        self,
        checkpoint: Checkpoint,
        precision: Precision | None = None,
        threads: int = 0,
        device: str = "cpu",
    ) -> Any:
        """A ready model.

        Args:
            precision: the weights are cast when they are read; None keeps the stored one where
                the device computes with it, else float32.
            threads: of the CPU; 0 takes ``OMP_NUM_THREADS``, or four.
            device: ``cpu`` or ``cuda``.

        Raises:
            MissingDependency: faster-whisper is not installed.
            ConfigError: the device cannot compute at this precision.
            InputError: files are missing or damaged.
        """
        if find_spec("faster_whisper") is None:
            raise MissingDependency(
                "Whisper needs faster-whisper", where=checkpoint.name, next_step=_INSTALL
            )
        compute = _compute_type(precision, device)
        ready = checkpoint
        if not checkpoint.has(BINARY):
            config_of(checkpoint)
            ready = Checkpoint.at(converted(checkpoint), checkpoint.name)
        folder = _checked_folder(ready)
        import ctranslate2
        from faster_whisper import WhisperModel

        # It warns of every cast to what the device computes with, which is documented here.
        ctranslate2.set_log_level(logging.ERROR)
        try:
            return WhisperModel(
                str(folder),
                device=device,
                compute_type=compute,
                cpu_threads=threads,
                local_files_only=True,
            )
        except (RuntimeError, ValueError, IndexError) as error:
            raise BrokenFile(
                f"CTranslate2 cannot load this model: {error}",
                where=checkpoint.name,
                next_step="download the model again",
            ) from error

    def processor(self, checkpoint: Checkpoint) -> Processor:
        """Tokens to text; sound goes to ``transcribe``."""
        return _Tokens(checkpoint)

    def component_of(self, name: str) -> str:
        """``audio`` is the encoder, ``language`` the decoder."""
        return "audio" if name.startswith(("encoder/", "model.encoder.")) else "language"

    def transcribe(
        self,
        module: Any,
        processor: Processor,
        sound_t: NDArray[np.float32],
        rate: int,
        listening: Listening | None = None,
    ) -> Transcript:
        """What is said, with times.

        The language is empty where nothing is said and none was given. The same sound gives the
        same words: the search draws lots only after it failed, and from a fixed start.

        Args:
            module: of ``build``.
            sound_t: mono ``float32`` in [-1, 1], shape (t,).
            rate: of ``sound_t``; Whisper takes 16 000 Hz only.

        Raises:
            InputError: another rate, type or shape.
            ConfigError: a language that the model does not know.
        """
        del processor
        listening = listening or Listening()
        _check_sound(sound_t, rate)
        if listening.language is not None and listening.language not in module.supported_languages:
            raise ConfigError(
                f"this model knows no language {listening.language!r}",
                next_step=f"give one of {', '.join(sorted(module.supported_languages))}",
            )
        seconds = len(sound_t) / rate
        if not len(sound_t) or (listening.find_speech and not _has_speech(sound_t)):
            return Transcript((), listening.language or "", seconds)
        import ctranslate2

        ctranslate2.set_random_seed(0)
        found, info = module.transcribe(
            sound_t,
            language=listening.language,
            task="translate" if listening.translate else "transcribe",
            beam_size=listening.beams,
            initial_prompt=listening.prompt,
            vad_filter=listening.find_speech,
        )
        segments = tuple(
            Segment(float(one.start), min(float(one.end), seconds), one.text.strip())
            for one in found
        )
        return Transcript(segments, str(info.language), seconds)


class _Tokens(Processor):
    """Tokens of a checkpoint's ``tokenizer.json``."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from tokenizers import Tokenizer

        _must_have_tokenizer(checkpoint)
        self._name = checkpoint.name
        self.tokenizer = Tokenizer.from_str(checkpoint.files.read(_TOKENIZER).decode())
        end = self.tokenizer.token_to_id("<|endoftext|>")
        if end is None:
            raise InputError(f"{_TOKENIZER} has no <|endoftext|>", where=checkpoint.name)
        self._end = int(end)

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        """Whisper answers no requests.

        Raises:
            InputError: always.
        """
        del media
        raise InputError(
            "Whisper writes down what is said; it answers no requests",
            where=request.id,
            next_step="use `octavo transcribe`, or Model.transcribe",
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """Special tokens and times have the ids from the end token on."""
        return str(self.tokenizer.decode([token for token in tokens if token < self._end]))

    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset({self._end})


def _compute_type(precision: Precision | None, device: str) -> str:
    import ctranslate2

    if device not in ("cpu", "cuda"):
        raise ConfigError(f"Whisper cannot run on {device!r}", next_step="use cpu or cuda")
    if device == "cuda" and not ctranslate2.get_cuda_device_count():
        raise ConfigError("CTranslate2 finds no CUDA device", next_step="use cpu")
    if precision is None:
        return "default"
    supported = ctranslate2.get_supported_compute_types(device)
    compute = _COMPUTE.get(precision, "none")
    if compute not in supported:
        able = [name for name, kind in _COMPUTE.items() if kind in supported]
        raise ConfigError(
            f"Whisper cannot run at {precision} on this {device}",
            next_step=f"use {', '.join(sorted(able))}",
        )
    return compute


def _checked_folder(checkpoint: Checkpoint) -> Path:
    """What faster-whisper would download or misread, found before."""
    if checkpoint.folder is None:
        raise InputError(
            "the model is not on this machine",
            where=checkpoint.name,
            next_step=f"octavo pull {checkpoint.name}",
        )
    _must_have_tokenizer(checkpoint)
    if not any(checkpoint.has(name) for name in _VOCABULARIES):
        raise SourceNotFound(
            f"no {_VOCABULARIES[0]} or {_VOCABULARIES[1]}",
            where=checkpoint.name,
            next_step="download the model again",
        )
    binary = read_binary(checkpoint)
    bands = _bands(checkpoint)
    first = binary.tensors.get("encoder/conv1/weight")
    if first is not None and first.shape[1] != bands:
        raise InputError(
            f"the model hears {first.shape[1]} bands, its {_PREPROCESSOR} makes {bands}",
            where=checkpoint.name,
            next_step=f"add the model's own {_PREPROCESSOR}",
        )
    return checkpoint.folder


def _bands(checkpoint: Checkpoint) -> int:
    if not checkpoint.has(_PREPROCESSOR):
        return 80
    return int(checkpoint.json(_PREPROCESSOR).get("feature_size", 80))


def _must_have_tokenizer(checkpoint: Checkpoint) -> None:
    if not checkpoint.has(_TOKENIZER):
        raise SourceNotFound(
            f"no {_TOKENIZER}", where=checkpoint.name, next_step="download the model again"
        )
    checkpoint.json(_TOKENIZER)


def _check_sound(sound_t: NDArray[np.float32], rate: int) -> None:
    if rate != RATE:
        raise InputError(
            f"sound at {rate} Hz; Whisper takes {RATE}", next_step="resample it before"
        )
    if sound_t.ndim != 1 or sound_t.dtype.name != "float32":
        raise InputError(
            f"sound of type {sound_t.dtype} and shape {sound_t.shape}",
            next_step="give mono float32 samples in [-1, 1], shape (samples,)",
        )


def _has_speech(sound_t: NDArray[np.float32]) -> bool:
    from faster_whisper.vad import get_speech_timestamps

    return bool(get_speech_timestamps(sound_t))
