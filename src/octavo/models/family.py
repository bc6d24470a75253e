"""What a family of models must know to be loaded, planned and asked: one subclass a family.

Shape letters: b requests, t tokens, d features, h height, w width, n pictures.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from octavo.errors import ConfigError
from octavo.hardware.spec import ModelSpec, Precision, TensorSpec
from octavo.models.checkpoint import Checkpoint
from octavo.requests import InputMode, MediaReader, Request, Sampling, Transcript

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from octavo.models.constraints import Matcher

    Pixels = NDArray[np.uint8]


class Task(StrEnum):
    """What can be asked of a model."""

    CHAT = "chat"
    CAPTION = "caption"
    ANSWER = "answer"  # a question about a picture
    CLASSIFY = "classify"
    EMBED_TEXT = "embed-text"
    EMBED_IMAGE = "embed-image"
    SCORE_VIDEO = "score-video"
    TRANSCRIBE = "transcribe"


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A request as tensors, on the CPU.

    Attributes:
        inputs: keyword arguments of the module's ``forward`` and ``generate``: ``input_ids``
            (1, t) and what belongs to its media.
        prompt_tokens, media_tokens: of the prompt, and the share that media take.
        notes: what was decided on the way (size after resizing, frames taken), for people.
    """

    inputs: Mapping[str, torch.Tensor]
    prompt_tokens: int
    media_tokens: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Generated:
    """Tokens of one answer, without the prompt; ``stopped`` when the model ended it itself,
    ``looped`` when it said the same over and over."""

    tokens: tuple[int, ...]
    stopped: bool
    looped: bool = False


@dataclass(frozen=True, slots=True)
class Guard:
    """What a running generation looks at after every token.

    Attributes:
        token: called with each new id.
        cancelled: whether to stop now.
        matcher: makes what holds the answer to its form; None where it may say anything.
        cache: makes what keeps the keys and values of so many tokens; None leaves it to the model.
    """

    token: Callable[[int], None] = field(default=lambda _token: None)
    cancelled: Callable[[], bool] = field(default=lambda: False)
    matcher: Callable[[], Matcher] | None = None
    cache: Callable[[int], Any] | None = None


class Processor(ABC):
    """Requests to tensors and tokens to text; needs no weights.

    Attributes:
        tokenizer: of the answers, transformers'.
    """

    tokenizer: Any

    @abstractmethod
    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        """Raises:
        InputError: a part cannot be opened, or is of a kind that the family does not take.
        """

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """Text without special tokens."""

    @property
    @abstractmethod
    def end_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""


class Family(ABC):
    """One family. Stateless: what belongs to a checkpoint is passed in.

    Class attributes:
        name: as in ``octavo platforms``.
        model_types: of ``config.json``; no two families share one.
        tasks, modes: what it can do and what it takes.
        loads_itself: the library behind it reads its own files (CTranslate2): ``build`` returns
            a ready model, and so does ``open``, in one precision.
        paged: its decoder can use the paged cache (:mod:`octavo.engine.cache`).
        caption_prompt: the words that ask for a caption; empty where the picture is enough.
    """

    name: ClassVar[str]
    model_types: ClassVar[frozenset[str]]
    tasks: ClassVar[frozenset[Task]]
    modes: ClassVar[frozenset[InputMode]] = frozenset({InputMode.LANGUAGE})
    loads_itself: ClassVar[bool] = False
    paged: ClassVar[bool] = False
    caption_prompt: ClassVar[str] = "Describe the picture in one sentence."

    def recognizes(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is of this family."""
        return checkpoint.model_type in self.model_types

    @abstractmethod
    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        """Components, shapes and sizes; reads configuration and headers only, needs no torch.

        Raises:
            InputError: the configuration is not one of this family.
        """

    @abstractmethod
    def build(self, checkpoint: Checkpoint) -> nn.Module:
        """The module on the meta device, in evaluation mode: no memory, no random numbers.

        Buffers that no checkpoint holds (rotary frequencies) are real, on the CPU.
        """

    def open(self, checkpoint: Checkpoint, *, precision: Precision | None, device: str) -> Any:
        """A ready model, for a family that loads itself."""
        raise NotImplementedError(f"{self.name} is loaded by component")

    @abstractmethod
    def processor(self, checkpoint: Checkpoint) -> Processor:
        """The processor from the checkpoint's own files."""

    @abstractmethod
    def component_of(self, name: str) -> str:
        """The component of a tensor or parameter, by its name in the checkpoint or module."""

    def sources(self, checkpoint: Checkpoint, module: nn.Module) -> Mapping[str, str]:
        """Parameter or buffer of ``module`` → the checkpoint's tensor that fills it.

        Tied weights appear once, under the name that the module keeps first. What a checkpoint
        holds and no parameter wants is left out.

        Raises:
            InputError: a parameter that nothing fills (names it).
        """
        from octavo.models.names import match_names

        return match_names(checkpoint, module)

    def convert(self, name: str, stored: torch.Tensor) -> torch.Tensor:
        """A stored tensor in the layout that the module wants; most are as they are."""
        del name
        return stored

    def components_for(self, mode: InputMode) -> frozenset[str]:
        """Components that a request of this mode uses."""
        wanted = {"language", "projector"}
        if mode in (InputMode.VISION, InputMode.VISION_SPEECH):
            wanted.add("vision")
        if mode in (InputMode.SPEECH, InputMode.VISION_SPEECH):
            wanted.add("audio")
        return frozenset(wanted)

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        """The repeated layers of a component, in order of use; empty where there are none."""
        del module, component
        return ()

    # What it answers. A family overrides what its ``tasks`` name.

    def generate(
        self,
        module: nn.Module,
        processor: Processor,
        prepared: Prepared,
        *,
        max_new_tokens: int,
        sampling: Sampling,
        guard: Guard,
    ) -> Generated:
        """Answers one prepared request, by default over transformers' own ``generate``."""
        from octavo.models.generation import generate

        return generate(
            module,
            processor,
            prepared,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            guard=guard,
        )

    def embed_texts(
        self, module: nn.Module, processor: Processor, texts: Sequence[str]
    ) -> torch.Tensor:
        """Shape (b, d), rows of length 1, float32."""
        raise self.cannot(Task.EMBED_TEXT)

    def embed_pictures(
        self, module: nn.Module, processor: Processor, pictures: Sequence[Pixels]
    ) -> torch.Tensor:
        """Shape (n, d), rows of length 1, float32."""
        raise self.cannot(Task.EMBED_IMAGE)

    def score_pictures(
        self,
        module: nn.Module,
        processor: Processor,
        pictures: Sequence[Pixels],
        texts: Sequence[str],
    ) -> torch.Tensor:
        """Logits of each text for each picture, shape (n, b), float32; the larger the likelier."""
        raise self.cannot(Task.CLASSIFY)

    def score_video(
        self,
        module: nn.Module,
        processor: Processor,
        frames: Sequence[Pixels],
        texts: Sequence[str],
    ) -> torch.Tensor:
        """Logits of each text for one film, shape (b,), float32."""
        raise self.cannot(Task.SCORE_VIDEO)

    def transcribe(
        self, module: nn.Module, processor: Processor, sound_t: NDArray[np.float32], rate: int
    ) -> Transcript:
        """What is said in mono samples at ``rate`` Hz."""
        raise self.cannot(Task.TRANSCRIBE)

    def cannot(self, task: Task) -> ConfigError:
        """The error for a task that is not among :attr:`tasks`."""
        from octavo.models.registry import families

        able = sorted(family.name for family in families() if task in family.tasks)
        return ConfigError(
            f"{self.name} models cannot do this task: {task}",
            next_step=f"families that can: {', '.join(able)}" if able else None,
        )


def components(
    family: Family,
    tensors: Mapping[str, TensorSpec],
    order: Sequence[str],
    layer_of: Callable[[str], int | None],
    is_matrix: Callable[[TensorSpec], bool],
) -> tuple[Any, ...]:
    """Sorts a checkpoint's tensors into :class:`ComponentSpec`, for ``describe``.

    Args:
        order: names of components, in order of use; those without tensors are left out.
        layer_of: the number of the layer that a tensor belongs to; None for none.
        is_matrix: whether it is the weight of a linear layer that may be quantized.
    """
    from dataclasses import replace

    from octavo.hardware.spec import ComponentSpec

    found = []
    for component in order:
        mine = [
            replace(tensor, matrix=is_matrix(tensor))
            for tensor in tensors.values()
            if family.component_of(tensor.name) == component
        ]
        layers: dict[int, list[str]] = {}
        for tensor in mine:
            number = layer_of(tensor.name)
            if number is not None:
                layers.setdefault(number, []).append(tensor.name)
        if mine:
            in_order = tuple(tuple(layers[number]) for number in sorted(layers))
            found.append(ComponentSpec(component, tuple(mine), in_order))
    return tuple(found)
