"""Feature files of the audio-visual zero-shot benchmarks: one per modality, stage and class.

``features/{main_features,cls_features}/{audio,video}/<stage>/<Class>.h5`` hold ``data`` (N, D)
float32 or float64 and ``video_urls`` (N,) fixed or variable strings, the names of the clips. These
are means over a clip.

``features/cls_features_non_averaged/{audio,video}/<stage>/<Class>.pkl``, published with TCaF, hold
a dictionary: ``features``, a list of N arrays (T_i, D) of float or uint8; ``video_names``, N bytes
or strings; ``fps``, not used here. Audio advances by 0.96 s and video by 0.64 s, so the T_i of a
clip differ; ``resampled`` brings both to the same number of steps over the whole clip.

Audio and video of a class list the same clips in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuroav.data.gzsl.classlists import RELEASE, ClassLists
from neuroav.data.gzsl.pickled import Stored, unpickled
from neuroav.data.zeroshot import Features
from neuroav.errors import DataError, FileFormatError

TEMPORAL_RELEASE = "the TCaF-GZSL release (ExplainableML/TCAF-GZSL)"
MODALITIES = ("audio", "video")
_MAX_RATIO = 1100  # deflate cannot do better than 1032:1; more is a damaged size field


@dataclass(frozen=True, eq=False)
class ClassFile:
    """One file: data float32 (N, D) or (N, steps, D), finite; names of its clips."""

    data: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A kind of feature files. ending: of their names; read: (path) -> ClassFile; widths: by
    modality, of the first file read and which it was, that all others must match."""

    ending: str
    read: Callable[[Path], ClassFile]
    widths: dict[str, tuple[int, Path]] = field(default_factory=dict)


def static_layout() -> Layout:
    """Files of one vector per clip."""
    return Layout(".h5", read_vectors)


def temporal_layout(steps: int) -> Layout:
    """Files of a sequence per clip, resampled to ``steps``."""
    return Layout(".pkl", lambda path: read_sequences(path, steps))


def read_stage(folder: Path, stage: str, lists: ClassLists, layout: Layout) -> Features:
    """Return the samples of the classes that the stage's .txt lists, in the order of class numbers.

    ``folder`` holds ``audio`` and ``video``. Files of other classes are not opened. DataError for a
    missing file, other clips in audio than in video, or another D than in the files before;
    FileFormatError for a damaged or refused file. Each names the file.
    """
    files = {kind: _by_class(folder / kind / stage, lists, layout.ending) for kind in MODALITIES}
    parts = []
    for number in lists.stages[stage].tolist():
        name = lists.classes[number]
        key = lists.benchmark.key(name)
        audio, video = (
            _read_class(files[kind].get(key), folder / kind / stage, kind, name, layout)
            for kind in MODALITIES
        )
        paths = tuple(files[kind][key] for kind in MODALITIES)
        _require_same_clips((audio, video), (paths[0], paths[1]))
        labels = np.full(len(audio.names), number, np.int64)
        parts.append(Features(audio.data, video.data, labels, np.array(audio.names, np.str_)))
    return Features.join(parts)


def _by_class(folder: Path, lists: ClassLists, ending: str) -> dict[str, Path]:
    """The files of a folder by what spellings of their class have in common."""
    try:
        found = sorted(path for path in folder.iterdir() if path.name.endswith(ending))
    except OSError as err:
        raise DataError(
            f"{folder}: {err.strerror}; it must hold one <Class>{ending} per class of the stage"
        ) from None
    files: dict[str, Path] = {}
    for path in found:
        key = lists.benchmark.key(path.name.removesuffix(ending))
        if key in files:
            raise DataError(f"{path}: {files[key].name} beside it is for the same class; keep one")
        files[key] = path
    return files


def _read_class(
    path: Path | None, folder: Path, kind: str, class_name: str, layout: Layout
) -> ClassFile:
    if path is None:
        raise DataError(
            f"{folder / (class_name + layout.ending)} is missing: the stage lists the class "
            f"{class_name!r}; take the file from {_source(layout.ending)}"
        )
    found = layout.read(path)
    width, first = layout.widths.setdefault(kind, (found.data.shape[-1], path))
    if found.data.shape[-1] != width:
        raise DataError(
            f"{path}: {found.data.shape[-1]} features per clip, but {width} in {first}; all files "
            f"of a modality must agree, take them from one release"
        )
    return found


def _source(ending: str) -> str:
    return RELEASE if ending == ".h5" else TEMPORAL_RELEASE


def _require_same_clips(files: tuple[ClassFile, ClassFile], paths: tuple[Path, Path]) -> None:
    audio, video = files[0].names, files[1].names
    if audio == video:
        return
    place = next(
        (i for i, (a, v) in enumerate(zip(audio, video, strict=False)) if a != v),
        min(len(audio), len(video)),
    )
    here, there = (repr(names[place]) if place < len(names) else "none" for names in (audio, video))
    raise DataError(
        f"{paths[0]}: {len(audio)} clips, {paths[1]}: {len(video)} clips; the first that differs "
        f"is clip {place}, {here} in audio and {there} in video; both must list the same clips in "
        f"one order, take both from one release"
    )


def read_vectors(path: Path) -> ClassFile:
    """Read an h5 file: data (N, D). FileFormatError naming the file if it is cut or not that."""
    try:
        size = path.stat().st_size
        with h5py.File(path, "r") as file:
            data, urls = (_dataset(file, name, size, path) for name in ("data", "video_urls"))
    except (DataError, FileFormatError):
        raise
    # h5py reports damage as whatever the broken structure led to.
    except Exception as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise FileFormatError(
            f"{path}: cut or damaged ({reason}); take the file from {RELEASE} again"
        ) from None
    floats = data.dtype.kind == "f" and data.dtype.itemsize in (4, 8)
    if not floats or data.ndim != 2 or data.shape[1] == 0:
        raise _wrong(
            path, f"data {data.dtype} {data.shape}", "float32 or float64 (clips, features)"
        )
    if urls.shape != data.shape[:1]:
        raise _wrong(path, f"video_urls {urls.shape} beside data {data.shape}", "one per clip")
    return ClassFile(_finite(data, path), _names(urls.tolist(), path))


def _dataset(file: h5py.File, name: str, size: int, path: Path) -> np.ndarray:
    # A link out of the file, or storage outside it, would read any file the user can read.
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise _wrong(path, f"datasets {', '.join(file) or 'none'}", "data and video_urls")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
        raise _wrong(path, f"{name} that is not stored in the file", "data and video_urls")
    if dataset.size is None or dataset.size * dataset.dtype.itemsize > size * _MAX_RATIO:
        raise _wrong(path, f"{name} {dataset.shape}", f"what {size} bytes can hold; is it cut?")
    return np.asarray(dataset[()])


def _wrong(path: Path, found: str, allowed: str) -> FileFormatError:
    source = _source(path.suffix)
    return FileFormatError(
        f"{path}: found {found}, allowed is {allowed}; take the file from {source}"
    )


def _finite(data: np.ndarray, path: Path) -> np.ndarray:
    with np.errstate(over="ignore"):
        data = data.astype(np.float32, copy=False)
    if not np.isfinite(data).all():
        good = np.isfinite(data.reshape(len(data), -1)).all(axis=1)
        raise _wrong(
            path,
            f"NaN or infinite values in {int((~good).sum())} clips, first clip {good.argmin()}",
            "finite values",
        )
    return data


def _names(values: Any, path: Path) -> tuple[str, ...]:
    try:
        names = tuple(v.decode() if isinstance(v, bytes) else v for v in values)
    except UnicodeDecodeError as err:
        raise _wrong(path, f"a clip name that is no text ({err})", "UTF-8") from None
    strange = [name for name in names if not isinstance(name, str)]
    if strange:
        raise _wrong(path, f"{strange[0]!r} as a clip name", "bytes or strings")
    return tuple(map(str, names))


def read_sequences(path: Path, steps: int) -> ClassFile:
    """Read a pkl file: data (N, steps, D), each clip's sequence ``resampled``.

    Nothing in the file is run. FileFormatError naming the file if it is cut, refused, or not that.
    """
    try:
        content = path.read_bytes()
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err}") from None
    found = unpickled(content, path, TEMPORAL_RELEASE)
    if not isinstance(found, dict) or not {"features", "video_names"} <= set(found):
        raise _wrong(path, _outline(found), "a dictionary of features, video_names and fps")
    names = _names(_items(found["video_names"], path, "video_names"), path)
    sequences = [_sequence(v, path) for v in _items(found["features"], path, "features")]
    if len(sequences) != len(names):
        raise _wrong(path, f"{len(sequences)} features and {len(names)} video_names", "one each")
    if not sequences:
        raise _wrong(path, "no clip", "one or more")
    # A pickle can name one array many times over, and so grow without bound.
    if sum(s.nbytes for s in sequences) > len(content):
        raise _wrong(path, "one array used for several clips", "one each")
    widths = {s.shape[1] for s in sequences}
    if len(widths) > 1:
        raise _wrong(path, f"clips of {sorted(widths)} features", "one number of them")
    data = np.stack([resampled(_finite(s, path), steps) for s in sequences])
    return ClassFile(data, names)


def _outline(found: Any) -> str:
    if not isinstance(found, dict):
        return f"a {type(found).__name__}"
    return f"a dictionary of {', '.join(sorted(map(str, found)))[:200] or 'nothing'}"


def _items(found: Any, path: Path, name: str) -> list[Any]:
    values = found.values if isinstance(found, Stored) else found
    if isinstance(values, np.ndarray) and values.ndim:
        return values.tolist() if values.dtype.kind in "SU" else list(values)
    if not isinstance(values, (list, tuple)):
        raise _wrong(path, f"{name} that is a {type(values).__name__}", "a list, one per clip")
    return list(values)


def _sequence(found: Any, path: Path) -> np.ndarray:
    values = found.values if isinstance(found, Stored) else found
    allowed = "float or uint8 (time, features), one step or more"
    if not isinstance(values, np.ndarray):
        raise _wrong(path, f"a clip that is a {type(values).__name__}", allowed)
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fu":
        raise _wrong(path, f"a clip {values.dtype} {values.shape}", allowed)
    return values


def resampled(sequence: np.ndarray, steps: int) -> np.ndarray:
    """Return (steps, D) float32 of a sequence (T, D), T and steps at least 1.

    T >= steps: step s is the mean of entries floor(s T / steps) .. floor((s + 1) T / steps) - 1:
    equal intervals, each entry used once. T < steps: step s is the entry in which the middle of
    the step lies, floor((s + 1/2) T / steps). T = steps leaves it as it is.
    """
    length, s = len(sequence), np.arange(steps)
    if length < steps:
        return sequence[(2 * s + 1) * length // (2 * steps)].astype(np.float32)
    starts = s * length // steps
    sums = np.add.reduceat(sequence, starts, axis=0, dtype=np.float64)
    return (sums / np.diff(starts, append=length)[:, None]).astype(np.float32)
