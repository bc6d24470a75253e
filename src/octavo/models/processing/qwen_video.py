"""Films as Qwen's vision towers take them, frame pair by frame pair.

Gives the values of transformers' ``Qwen3VLVideoProcessor`` and ``Qwen2VLVideoProcessor``, which
need torchvision; its resizing is torch's own ``interpolate``, which is used here directly.

Shape letters: n patches, c channels, f frames in a patch, h height, w width, p pixels in a patch.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import InputError
from octavo.models.processing.qwen_pictures import (
    Patching,
    bounded,
    check_aspect,
    cut,
    look_up,
    patching,
    settings_in,
)
from octavo.requests import Frame, MediaReader, Part, VideoSampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from octavo.models.checkpoint import Checkpoint

#: A film whose chosen frames take more than this is decoded twice: once to count, once to cut.
HELD_BYTES: Final = 256 << 20
#: Frames of a film, or of one segment, where the rate does not say how many.
USUAL_FRAMES: Final = 32


@dataclass(frozen=True, slots=True)
class FilmSettings:
    """How a checkpoint wants films.

    Attributes:
        patching: of frames; its bounds are of the whole film where ``shared``, else of a frame.
        fps: frames a second that are looked at.
        min_frames, max_frames: of a film.
        shared: whether all frames share the bounds (Qwen3-VL).
        capped: whether a frame's pixels are held down as qwen-vl-utils does it.
        max_tokens: of one frame where ``shared``, else of the film; for ``capped``.
    """

    patching: Patching
    fps: float = 2.0
    min_frames: int = 4
    max_frames: int = 768
    shared: bool = False
    capped: bool = False
    max_tokens: int = 128_000

    def sampling(self, wanted: VideoSampling | None) -> VideoSampling:
        """What to ask the reader for; ``wanted`` with its gaps filled."""
        if wanted is None:
            return VideoSampling("rate", self.max_frames, self.fps)
        if wanted.temporal_resolution is not None:
            return wanted
        frames = self.max_frames if wanted.strategy == "rate" else USUAL_FRAMES
        return replace(wanted, temporal_resolution=frames)

    def size(self, width: int, height: int, frames: int) -> tuple[int, int]:
        """Width and height of every frame after resizing.

        Raises:
            ValueError: too narrow.
        """
        most = self._most(frames)
        if not self.shared:
            return replace(self.patching.grid, max_pixels=most).resized(width, height)
        cell, together = self.patching.cell, self.patching.frames
        frames = max(frames, together)
        if 0 < min(width, height) < cell:
            scale = max(cell / width, cell / height)
            width, height = int(width * scale), int(height * scale)
        check_aspect(width, height)
        rounded = (round(width / cell) * cell, round(height / cell) * cell)
        counted = round(frames / together) * together
        least = self.patching.min_pixels
        return bounded((width, height), rounded, frames, cell, least, most, counted)

    def _most(self, frames: int) -> int:
        most = self.patching.max_pixels
        if not self.capped:
            return most
        least, cell = int(self.patching.min_pixels * 1.05), self.patching.cell
        if self.shared:
            return max(min(self.max_tokens * cell**2, most // frames), least) * frames
        budget = int(self.max_tokens * cell**2 * 0.9) * self.patching.frames
        return max(min(most, budget // frames), least)


def film_settings(checkpoint: Checkpoint, default: FilmSettings) -> FilmSettings:
    """How the checkpoint wants films; ``default`` where it does not say.

    Raises:
        InputError: settings that cannot be used.
    """
    values: Mapping[str, Any] | None = settings_in(
        checkpoint, "video_processor", "video_preprocessor_config.json", "preprocessor_config.json"
    )
    if values is None:
        return default
    return replace(
        default,
        patching=patching(values, default.patching, checkpoint.name, old_bounds=not default.shared),
        fps=float(values.get("fps") or default.fps),
        min_frames=int(values.get("min_frames") or default.min_frames),
        max_frames=int(values.get("max_frames") or default.max_frames),
        capped=bool(values.get("cap_pixels_per_frame")),
        max_tokens=int(values.get("max_video_tokens") or default.max_tokens),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """One film, or one segment of it, ready for the tower.

    Attributes:
        rows: shape (n, c*f*p).
        grid: frame groups, patches high, patches wide.
        seconds: of every frame that was taken, from the start of the whole film.
        frames: in a group; the last group of an odd film repeats its last frame.
    """

    rows: NDArray[np.float32]
    grid: tuple[int, int, int]
    seconds: tuple[float, ...]
    frames: int

    @property
    def group_seconds(self) -> tuple[float, ...]:
        """The middle of each group's first and last frame."""
        last = len(self.seconds) - 1
        return tuple(
            (self.seconds[first] + self.seconds[min(first + self.frames - 1, last)]) / 2
            for first in range(0, len(self.seconds), self.frames)
        )

    @property
    def seconds_per_group(self) -> float:
        """Time from one group to the next.

        Frames lie up to a frame's length beside the times that were asked for; what is within a
        twentieth of whole seconds is taken as whole, because positions are rounded down from it.
        """
        if len(self.seconds) < 2:
            return 1.0
        step = (self.seconds[-1] - self.seconds[0]) / (len(self.seconds) - 1) * self.frames
        return float(round(step)) if abs(step - round(step)) < 0.05 else step


def films(part: Part, media: MediaReader, settings: FilmSettings) -> list[Film]:
    """The film of a part, one for each of its segments.

    Frames are decoded, resized and cut one group at a time; what is held is the result and at
    most ``HELD_BYTES`` of frames.

    Raises:
        InputError: it has no frames, changes its size, or is too narrow.
    """
    sampling = settings.sampling(part.sampling)
    counts, held = _counted(media.frames(part, sampling))
    if part.sampling is None and counts.total() < settings.min_frames:
        sampling = VideoSampling("uniform", settings.min_frames)
        counts, held = _counted(media.frames(part, sampling))
    if not counts:
        raise InputError("a film without frames", where=part.where)
    frames = media.frames(part, sampling) if held is None else held
    found = [
        _film(segment, counts[number], settings, part.where)
        for number, segment in itertools.groupby(frames, key=lambda frame: frame.segment)
    ]
    if len(found) != len(counts):
        raise InputError(_CHANGED, where=part.where, next_step=_WAIT)
    return found


_CHANGED: Final = "the film changed while it was read"
_WAIT: Final = "wait until it is written, then try again"


def _counted(frames: Iterable[Frame]) -> tuple[Counter[int], list[Frame] | None]:
    """Frames by segment, and the frames themselves while they are few."""
    counts: Counter[int] = Counter()
    held: list[Frame] | None = []
    nbytes = 0
    for frame in frames:
        counts[frame.segment] += 1
        nbytes += frame.pixels.nbytes
        if held is not None:
            held.append(frame)
            held = held if nbytes <= HELD_BYTES else None
    return counts, held


def _film(frames: Iterator[Frame], count: int, settings: FilmSettings, where: str) -> Film:
    import numpy as np

    together, patch = settings.patching.frames, settings.patching.patch
    groups = -(-count // together)
    rows: NDArray[np.float32] | None = None
    shape: tuple[int, ...] = ()
    size = (0, 0)
    seconds: list[float] = []
    for number in itertools.count():
        group = list(itertools.islice(frames, together))
        if not group:
            break
        if rows is None:
            shape = group[0].pixels.shape
            size = _size(settings, shape, count, where)
            patches = (size[0] // patch) * (size[1] // patch)
            rows = np.empty((groups, patches, settings.patching.row), np.float32)
        if any(frame.pixels.shape != shape for frame in group):
            raise InputError("the film's frames differ in size", where=where)
        if number >= groups:
            raise InputError(_CHANGED, where=where, next_step=_WAIT)
        seconds += [frame.seconds for frame in group]
        _fill(rows[number], [frame.pixels for frame in group], size, settings.patching)
    if rows is None or len(seconds) != count:
        raise InputError(_CHANGED, where=where, next_step=_WAIT)
    grid = (groups, size[1] // patch, size[0] // patch)
    return Film(rows.reshape(-1, settings.patching.row), grid, tuple(seconds), together)


def _size(
    settings: FilmSettings, shape: tuple[int, ...], count: int, where: str
) -> tuple[int, int]:
    try:
        return settings.size(shape[1], shape[0], count)
    except ValueError as error:
        raise InputError(str(error), where=where, next_step="crop the film") from error


def _fill(
    rows: NDArray[np.float32],
    pictures: list[NDArray[np.uint8]],
    size: tuple[int, int],
    settings: Patching,
) -> None:
    """Resizes one group of frames and writes its rows, shape (n, c*f*p)."""
    import numpy as np
    import torch
    from torch.nn.functional import interpolate

    pictures = pictures + pictures[-1:] * (settings.frames - len(pictures))
    pixels_fhwc = torch.from_numpy(np.stack(pictures))
    pixels_fchw = pixels_fhwc.permute(0, 3, 1, 2)
    wide, high = size
    if pixels_fchw.shape[-2:] != (high, wide):
        pixels_fchw = interpolate(
            pixels_fchw.contiguous(), size=(high, wide), mode="bicubic", antialias=True
        )
    # transformers normalises in float32 by mean and deviation scaled to bytes.
    up = np.float32(1 / settings.scale)
    mean, std = (np.asarray(pair, np.float32) * up for pair in (settings.mean, settings.std))
    table = (np.arange(256, dtype=np.float32)[:, None] - mean) / std
    look_up(table, cut(pixels_fchw.numpy(), settings), rows, settings)
