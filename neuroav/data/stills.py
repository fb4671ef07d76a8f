"""Pictures and spectrograms: one of each per sample, the same in every step.

Recordings of this layout (``meta["layout"]`` = 'stills') hold

- visual column ``pixel`` uint8: the picture at its own size, rows x columns x (red, green, blue),
  flat; ``source["visual_size"]`` (N, 2) int64 says rows and columns;
- audio column ``level`` float32: a spectrogram of 128x128, row frequency, column time, flat.

Network input: audio (N, T, 1, S, S), the levels as they are; visual (N, T, 3, S, S), float32. A
picture is seen in one of two ways, those of torchvision's transforms as S-CMRL uses them:

``frames``     the shorter edge resized to 2 S, the other to ``int(2 S * long / short)``; the middle
               S x S of it, a quarter of the area or less;
``augmented``  a random part (area .08 to 1 of the picture, even; ratio 3/4 to 4/3, its logarithm
               even; ten tries, then the middle), resized to S x S, mirrored every second time.

Then x / 255, less ImageNet's mean, by its deviation. Pillow resizes (bilinear, averaging where it
shrinks), as it does under torchvision. Sounds are not altered. S is 128 as published, or 64 or 32:
then spectrograms are averaged over squares of 128 / S pixels.

``augmented`` is lazy: an epoch of CREMA-D would be 1.3 GB per step, so pictures are cut when a
batch asks for them, each from its own random numbers, in whatever order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np

from neuroav.data.augment import Augmentation, repair
from neuroav.data.avsplit import AVSplit
from neuroav.data.frames import MAX_STEPS, Frames
from neuroav.data.ragged import Ragged
from neuroav.data.spectrograms import SIZE, pillow
from neuroav.errors import ConfigError, DataError

SIZES = (32, 64, SIZE)
MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # ImageNet's, red, green, blue
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10


@dataclass(frozen=True)
class StillSpec:
    """steps: how often a sample is shown, 1..64. size: edge of both pictures, 32, 64 or 128.

    ConfigError for other values.
    """

    steps: int = 4
    size: int = SIZE

    def __post_init__(self) -> None:
        if self.steps not in range(1, MAX_STEPS + 1):
            raise ConfigError(f"steps {self.steps}: allowed are 1 to {MAX_STEPS}")
        if self.size not in SIZES:
            raise ConfigError(
                f"visual_size {self.size}: pictures and spectrograms of these data are "
                f"{', '.join(map(str, SIZES[:-1]))} or {SIZE} pixels, {SIZE} as published; "
                f"--set data.visual_size={SIZE}"
            )

    @property
    def audio_shape(self) -> tuple[int, int, int, int]:
        """(T, 1, S, S)."""
        return self.steps, 1, self.size, self.size

    @property
    def visual_shape(self) -> tuple[int, int, int, int]:
        """(T, 3, S, S)."""
        return self.steps, 3, self.size, self.size

    def layout(self) -> dict[str, str]:
        """What each axis of the frames means, in words."""
        shape = f"{self.size}, {self.size})"
        return {
            "audio": (
                f"float32 ({self.steps}, 1, {shape} = (step, 1, frequency row 0 = lowest, time "
                "column) ln of the magnitude, the same in every step"
            ),
            "visual": (
                f"float32 ({self.steps}, 3, {shape} = (step, red green blue, row y, column x) "
                "normalised by ImageNet's mean and deviation, the same in every step"
            ),
        }


@dataclass(frozen=True)
class LazyStills:
    """(N, T, C, S, S) float32 of which only what is asked for is made.

    one(i): the picture (C, S, S) of sample i. ``stills[index]``: an array of the samples that
    ``index``, of the first axis, picks; a number gives one without that axis. ``np.asarray`` makes
    all of them.
    """

    one: Callable[[int], np.ndarray]
    shape: tuple[int, int, int, int, int]
    dtype: ClassVar[np.dtype[Any]] = np.dtype(np.float32)
    ndim: ClassVar[int] = 5

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            raise TypeError("these pictures are made sample by sample: index the first axis alone")
        places = np.arange(len(self))[index]
        made = np.empty((places.size, *self.shape[2:]), self.dtype)
        for place, sample in enumerate(places.reshape(-1)):
            made[place] = self.one(int(sample))
        return _shown(made.reshape(*places.shape, *self.shape[2:]), self.shape[1])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _shown(pictures: np.ndarray, steps: int) -> np.ndarray:
    """(..., C, S, S) -> (..., T, C, S, S), the same memory in every step; not to be written to."""
    lead = pictures.shape[:-3]
    spread = pictures.reshape(*lead, 1, *pictures.shape[-3:])
    return np.broadcast_to(spread, (*lead, steps, *pictures.shape[-3:]))


@dataclass(frozen=True)
class StillSplit(AVSplit):
    """One split of samples laid out so; see the module's text."""

    has_events: ClassVar[bool] = False

    def frames(self, indices: Sequence[int] | np.ndarray | None = None) -> Frames:
        """Frames as they are tested: all in manifest order, or those at ``indices``."""
        rows = self._rows(indices)
        heard, seen = self._lazy(rows, rows, lambda _, row: centred(self._pixels(row), self._size))
        return Frames(
            None if heard is None else heard[:],
            None if seen is None else seen[:],
            self.recordings.labels[rows],
        )

    def augmented(self, augmentation: Augmentation, rng: np.random.Generator) -> Frames:
        """One epoch of training, lazy: every sound once, with its picture cut at random.

        Of ``augmentation`` only ``repair`` counts, the rest alters events. Draws from ``rng`` are
        the same for any order of batches. DataError for a split other than train.
        """
        if self.name != "train":
            raise DataError(f"split {self.name!r} is never augmented: use split 'train'")
        seed = int(rng.integers(2**63))
        partner = repair(self.labels, rng) if augmentation.repair else np.arange(len(self))

        def cut(sample: int, row: int) -> np.ndarray:
            own = np.random.default_rng([seed, sample])
            return random_part(self._pixels(row), self._size, own)

        heard, seen = self._lazy(self.rows, self.rows[partner], cut)
        # Whoever reads an epoch indexes samples, as one does an array.
        return Frames(
            cast("np.ndarray | None", heard), cast("np.ndarray | None", seen), self.labels.copy()
        )

    def altered(
        self,
        change: Callable[[str, Ragged], Ragged],
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Frames:
        """DataError: there are no events to alter."""
        raise DataError(self._no_events())

    def raw_events(self, index: int) -> dict[str, Any]:
        """DataError: there are none; ``has_events`` tells."""
        raise DataError(self._no_events())

    def _no_events(self) -> str:
        return (
            f"{self.recordings.meta['name']}: holds pictures and spectrograms, no events to alter "
            "or to draw; use data with events, av-digits for instance"
        )

    @property
    def _size(self) -> int:
        return self.spec.size

    def _lazy(
        self, heard: np.ndarray, seen: np.ndarray, view: Callable[[int, int], np.ndarray]
    ) -> tuple[LazyStills | None, LazyStills | None]:
        """Sounds of the recordings ``heard`` and pictures of ``seen`` as view(sample, row)."""
        whole, (steps, _, size, _) = self.recordings, self.spec.audio_shape

        def stills(rows: np.ndarray, channels: int, one: Callable[[int, int], np.ndarray]) -> Any:
            shape = (len(rows), steps, channels, size, size)
            return LazyStills(lambda sample: one(sample, int(rows[sample])), shape)

        return (
            None if whole.audio is None else stills(heard, 1, lambda _, row: self._levels(row)),
            None if whole.visual is None else stills(seen, 3, view),
        )

    def _levels(self, row: int) -> np.ndarray:
        audio, size = cast(Ragged, self.recordings.audio), self._size
        level = np.asarray(audio.one(row)["level"])
        if level.shape != (SIZE * SIZE,):
            raise DataError(f"spectrogram {row}: {level.shape} values, needs {SIZE}x{SIZE}")
        part = SIZE // size
        return level.reshape(1, size, part, size, part).mean(axis=(2, 4), dtype=np.float32)

    def _pixels(self, row: int) -> np.ndarray:
        """The stored picture of a recording, uint8 (rows, columns, 3)."""
        visual = cast(Ragged, self.recordings.visual)
        rows, columns = self.recordings.source["visual_size"][row]
        pixel = np.asarray(visual.one(row)["pixel"])
        if min(rows, columns) < 1 or pixel.shape != (rows * columns * 3,):
            raise DataError(f"picture {row}: {pixel.shape} values, needs {rows}x{columns}x3")
        return pixel.reshape(rows, columns, 3)


# --- cutting pictures --------------------------------------------------------------------------
def centred(pixels: np.ndarray, size: int) -> np.ndarray:
    """The middle of a picture (rows, columns, 3) uint8 as (3, size, size) float32, normalised.

    The picture's shorter edge is resized to twice ``size`` before.
    """
    rows, columns = pixels.shape[:2]
    short, wanted = min(rows, columns), 2 * size
    resized = (int(wanted * columns / short), int(wanted * rows / short))
    image = _image(pixels).resize(resized, _bilinear())
    left, top = (round((edge - size) / 2) for edge in resized)
    return _normalised(image.crop((left, top, left + size, top + size)))


def random_part(pixels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of a picture (rows, columns, 3) uint8 as (3, size, size) float32, normalised.

    Every second one, on average, is mirrored left to right.
    """
    top, left, rows, columns = random_box(pixels.shape[0], pixels.shape[1], rng)
    mirrored = rng.random() < 0.5
    part = _image(pixels[top : top + rows, left : left + columns]).resize((size, size), _bilinear())
    out = _normalised(part)
    return out[:, :, ::-1] if mirrored else out


def random_box(rows: int, columns: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, rows, columns) of a random part of a picture, as RandomResizedCrop draws it."""
    for _ in range(TRIES):
        area = rows * columns * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= columns and 0 < high <= rows:
            top = int(rng.integers(rows - high + 1))
            return top, int(rng.integers(columns - wide + 1)), high, wide
    # No part fits a picture that is long and narrow: the middle, as near to its ratio as allowed.
    ratio = min(max(columns / rows, RATIO[0]), RATIO[1])
    wide, high = min(columns, round(rows * ratio)), min(rows, round(columns / ratio))
    return (rows - high) // 2, (columns - wide) // 2, high, wide


def _image(pixels: np.ndarray) -> Any:
    return pillow().Image.fromarray(np.ascontiguousarray(pixels))


def _bilinear() -> Any:
    return pillow().Image.Resampling.BILINEAR


def _normalised(image: Any) -> np.ndarray:
    """A picture of Pillow as (3, rows, columns) float32."""
    scaled = np.asarray(image, np.float32) / np.float32(255)
    return np.ascontiguousarray(((scaled - MEAN) / DEVIATION).transpose(2, 0, 1))
