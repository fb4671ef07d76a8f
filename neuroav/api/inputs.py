"""What callers feed, as the rest of the package takes it: arrays by input name, labels as integers.

Nothing here imports torch; a tensor is known by its methods.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from neuroav.deployment import Deployment, Probe
from neuroav.doctor import install_line
from neuroav.errors import DataError, MissingDependency
from neuroav.simulate import GIVEN, UNKNOWN, Samples, probe_samples

if TYPE_CHECKING:
    import torch
    from torch import nn

    Array: TypeAlias = np.ndarray | torch.Tensor
    Inputs: TypeAlias = Array | Mapping[str, Array]

LAYOUT = "(samples, steps, ...)"
PROBE_SAMPLES = 8  # that a network carries, so that it can be run and checked anywhere


@contextmanager
def installed(what: str) -> Iterator[None]:
    """Turn the lack of an optional package into MissingDependency with the line to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        line = install_line(package)
        if line is None:
            raise
        raise MissingDependency(f"{what} needs {package}; install it with: {line}") from error


def array(value: Any, name: str) -> np.ndarray:
    """Return a numpy array or torch tensor as numpy; DataError for anything else, or no numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise DataError(
            f"{name}: is a {type(value).__name__}, needs a numpy array or a torch tensor {LAYOUT}, "
            "or a dict with one by input name"
        )
    if value.dtype.kind not in "iufb":
        raise DataError(f"{name}: dtype is {value.dtype}, needs whole numbers: event counts")
    return value


def module_inputs(model: nn.Module, sample: Inputs) -> dict[str, np.ndarray]:
    """Return a compiler's sample by input name, in the order of the module's forward.

    One array goes to the only input of forward. A dict is put in the order of forward's arguments
    where it has their names, and taken in its own order otherwise. DataError says what misfits.
    """
    wanted = forward_names(model)
    if not isinstance(sample, Mapping):
        if wanted is None or len(wanted) != 1:
            raise DataError(
                f"the sample is one array, but forward of {type(model).__name__} takes "
                f"{_named(wanted)}; give a dict with an array for each"
            )
        return {wanted[0]: array(sample, "the sample")}
    given = {str(n): array(v, f"sample {n!r}") for n, v in sample.items()}
    if wanted is None:
        return given
    if len(wanted) != len(given):
        raise DataError(
            f"the sample holds {_named(list(given))}, but forward of {type(model).__name__} takes "
            f"{_named(wanted)}; give an array for each"
        )
    return {n: given[n] for n in wanted} if set(wanted) == set(given) else given


def forward_names(model: nn.Module) -> list[str] | None:
    """Return the names of what forward must be given; None where it takes any number.

    A module that names its ``inputs``, as ours do, is taken at its word.
    """
    named = getattr(model, "inputs", None)
    if isinstance(named, tuple) and named and all(isinstance(n, str) for n in named):
        return list(named)
    found = []
    for name, parameter in inspect.signature(model.forward).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return None
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            found.append(name)
    return found


def _named(names: list[str] | None) -> str:
    if not names:
        return "any number of inputs" if names is None else "no input"
    return f"{len(names)} input{'s' * (len(names) > 1)} ({', '.join(names)})"


def carrying(deployment: Deployment, sample: Mapping[str, np.ndarray], labels: Any) -> Deployment:
    """Return the deployment with the first samples, and their labels, inside.

    DataError for counts that its inputs do not admit, and labels that misfit.
    """
    deployment.counts(sample)
    count = len(next(iter(sample.values())))
    known = label_array(labels, count, len(deployment.classes))
    kept = {
        n: v[:PROBE_SAMPLES].astype(np.float32 if n in deployment.static else np.int32)
        for n, v in sample.items()
    }
    return replace(deployment, probe=Probe(kept, known[:PROBE_SAMPLES]))


def given_samples(deployment: Deployment, x: Inputs | None, labels: Any = None) -> Samples:
    """Return what a deployment is to be run on: ``x``, or the samples it carries where that is
    None.

    labels: (samples,) class numbers, -1 for unknown ones; None where nobody knows. DataError names
    what misfits.
    """
    if x is None:
        if labels is not None:
            raise DataError("labels without samples: give x too")
        if deployment.probe is None:
            raise DataError("the network carries no samples of its own; give x")
        return probe_samples(deployment)
    names = deployment.fed
    if isinstance(x, Mapping):
        inputs = {str(n): array(v, f"input {n!r}") for n, v in x.items()}
    elif len(names) == 1:
        inputs = {names[0]: array(x, f"input {names[0]!r}")}
    else:
        raise DataError(
            f"x is one array, but the network has {_named(list(names))}; give a dict with an array "
            "for each"
        )
    _check_axes(deployment, inputs)
    counts = deployment.counts(inputs)  # refuses bad values before any work
    total = len(next(iter(counts.values())))
    if not total:
        raise DataError("x holds no samples; give at least one")
    return Samples(inputs, label_array(labels, total, len(deployment.classes)), GIVEN)


def _check_axes(deployment: Deployment, inputs: Mapping[str, np.ndarray]) -> None:
    """Raise DataError with the remedy for axes that are missing or in another order."""
    steps = deployment.integer.steps
    for name, population in deployment.integer.inputs.items():
        if name not in inputs or name in deployment.host:
            continue
        shape, whole = inputs[name].shape, (steps, *population.shape)
        lead = f"input {name!r}: shape is {shape}, needs (samples, {', '.join(map(str, whole))})"
        if shape == whole:
            raise DataError(f"{lead}; of one sample give x[None]")
        if shape[0:1] == whole[:1] != shape[1:2] and shape[2:] == population.shape:
            raise DataError(f"{lead}; time comes second: give np.moveaxis(x, 0, 1)")


def label_array(labels: Any, samples: int, classes: int) -> np.ndarray:
    """Return labels int64 (samples,), all ``UNKNOWN`` for None; DataError where they misfit."""
    if labels is None:
        return np.full(samples, UNKNOWN, np.int64)
    found = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels)
    if found.shape != (samples,) or found.dtype.kind not in "iu":
        raise DataError(
            f"labels: {found.dtype} of shape {found.shape}, needs whole numbers, one for each of "
            f"{samples} samples"
        )
    low, high = int(found.min()), int(found.max())
    if low < UNKNOWN or high >= classes:
        raise DataError(
            f"labels: span {low}..{high}, allowed are 0..{classes - 1}, and {UNKNOWN} for unknown"
        )
    return found.astype(np.int64)
