"""What all readers share: samples that come with a file, and names that do not collide."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroav.deployment import Deployment, Probe
from neuroav.errors import DataError

PROBE_SAMPLES = 8  # that are carried inside the file
UNKNOWN = -1  # the label of a sample whose class nobody said
LABELS = "labels"  # the array of an .npz file that is no input
_MOST_BYTES = 1 << 32  # of all arrays of an .npz file


@dataclass(frozen=True, eq=False)
class Given:
    """Samples brought along: inputs (samples, steps, *shape) by name, labels (samples,) or None."""

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None

    @property
    def steps(self) -> int:
        """Steps of a sample."""
        return next(iter(self.inputs.values())).shape[1]


def load_given(path: str | Path) -> Given:
    """Return the samples in an .npz file: an array per input, and ``labels`` where there are any.

    DataError where the file is no such file, or its arrays do not belong together.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; write one with numpy.savez(FILE, INPUT=array)")
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(part.file_size for part in packed.infolist())
        if size > _MOST_BYTES:
            raise DataError(
                f"{path}: holds {size} bytes, allowed are {_MOST_BYTES}; the first samples are "
                f"enough: {PROBE_SAMPLES} are kept"
            )
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except DataError:
        raise
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read as samples ({error}); needs an .npz file of number arrays, "
            "as numpy.savez writes it"
        ) from None
    return _checked(path, arrays)


def _checked(path: Path, arrays: dict[str, np.ndarray]) -> Given:
    labels = arrays.pop(LABELS, None)
    if not arrays:
        raise DataError(f"{path}: holds no input; needs an array for each, by its name")
    for name, value in arrays.items():
        if value.dtype.kind not in "iubf" or value.ndim < 3 or 0 in value.shape:
            raise DataError(
                f"{path}: {name} is {value.dtype} of shape {value.shape}, needs numbers (samples, "
                "steps, *shape of the input)"
            )
    counts = {n: v.shape[:2] for n, v in arrays.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{n} has {v}" for n, v in counts.items())
        raise DataError(f"{path}: inputs differ in samples and steps: {found}")
    if labels is not None:
        samples = next(iter(counts.values()))[0]
        if labels.dtype.kind not in "iu" or labels.shape != (samples,):
            raise DataError(
                f"{path}: labels are {labels.dtype} of shape {labels.shape}, needs {samples} "
                "class numbers"
            )
        labels = labels.astype(np.int64)
    return Given(arrays, labels)


def probe(deployment: Deployment, given: Given) -> Probe:
    """Return the first samples as the probe of a deployment; DataError where they do not fit it."""
    inputs = {
        n: v[:PROBE_SAMPLES].astype(np.float32) if n in deployment.static else v[:PROBE_SAMPLES]
        for n, v in given.inputs.items()
    }
    deployment.counts(inputs)
    count = len(next(iter(inputs.values())))
    labels = np.full(count, UNKNOWN) if given.labels is None else given.labels[:count]
    classes = len(deployment.classes)
    if given.labels is not None and not 0 <= given.labels.min() <= given.labels.max() < classes:
        raise DataError(
            f"labels span {given.labels.min()}..{given.labels.max()}, the network's {classes} "
            f"classes allow 0..{classes - 1}"
        )
    return Probe(inputs, labels.astype(np.int64))


def free_name(wanted: str, taken: Collection[str]) -> str:
    """Return ``wanted``, with a number behind it where that is the name of something else."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}{number}", number + 1
    return name
