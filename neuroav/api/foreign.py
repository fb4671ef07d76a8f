"""Networks that other tools wrote."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from neuroav.api.inputs import array, carrying, installed
from neuroav.api.network import Network
from neuroav.deployment import Deployment
from neuroav.errors import DataError

if TYPE_CHECKING:
    from neuroav.api.inputs import Array, Inputs
    from neuroav.quantization import Calibration


def import_nir(
    source: str | Path | Any,
    sample: Inputs,
    *,
    dt_s: float | None = None,
    unit_s: float = 1.0,
    decode: Literal["rate", "last"] | None = None,
    reset: Literal["value", "subtract", "subtract-late"] = "value",
    decay: Literal["euler", "exponential"] = "euler",
    inclusive: bool = False,
    output: str | None = None,
    target: str = "loihi2",
    bits: int = 8,
    calibration: Calibration = "mse",
    per_channel: bool = False,
    classes: Sequence[str] = (),
    labels: Array | Sequence[int] | None = None,
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
    place: bool = True,
    provenance: Mapping[str, object] | None = None,
) -> Network:
    """Return the network of a NIR file, or of a ``nir.NIRGraph``, compiled for a target.

    sample, labels, target, bits and what follows: as for ``export``. dt_s: time step in seconds,
    from the file where NeuroAV wrote it. unit_s: seconds in the file's unit of time. decode: class
    scores are the mean over time ('rate') or the last value ('last') of what the output reads.
    reset: whether a spike takes the threshold off, at once or in the next step. decay: per step
    1 - dt / tau or exp(-dt / tau). inclusive: whether a spike comes at the threshold too.
    output: which output node. ``docs/formats.md`` says what is read and how. Raises FileFormatError
    and as ``export``.

    >>> import neuroav
    >>> tiny = neuroav.load("shipped:tiny.nav")
    >>> _ = tiny.convert("nir", "tiny.nir")
    >>> net = neuroav.import_nir("tiny.nir", tiny.deployment.probe.inputs, classes=tiny.classes)
    >>> net.simulate().answers == tiny.simulate().answers[:8]
    True
    """
    with installed("reading NIR"):
        from neuroav_export.readers.nir import import_nir as read

        given = (
            {str(n): array(v, f"sample {n!r}") for n, v in sample.items()}
            if isinstance(sample, Mapping)
            else array(sample, "the sample")
        )
        deployment = read(
            source,
            given,
            dt_s=dt_s,
            unit_s=unit_s,
            decode=decode,
            reset=reset,
            decay=decay,
            inclusive=inclusive,
            output=output,
            target=target,
            bits=bits,
            calibration=calibration,
            per_channel=per_channel,
            classes=tuple(classes),
            max_count=max_count,
            static=static,
            provenance=provenance,
        )
        return _network(deployment, given, labels, place)


def import_netx(
    path: str | Path,
    sample: Inputs | None = None,
    *,
    steps: int | None = None,
    dt_s: float | None = None,
    input_shape: tuple[int, ...] | None = None,
    input_message_bits: int | None = None,
    target: str = "loihi2",
    classes: Sequence[str] = (),
    labels: Array | Sequence[int] | None = None,
    place: bool = True,
) -> Network:
    """Return the network of a .net file (lava-dl's ``netx``), whose integers it keeps.

    sample: event counts (samples, steps, *shape), of which the first travel with the network; None
    for none. steps: per sample, those of ``sample`` where that is given, else from the file where
    NeuroAV wrote it. dt_s: seconds per step (1 ms). input_shape, input_message_bits: where the file
    does not say. target, classes, labels, place: as for ``export``. Raises FileFormatError,
    UnsupportedNode, ConfigError, DataError, ProfileError, DoesNotFit, OutOfRange.

    >>> import neuroav
    >>> tiny = neuroav.load("shipped:tiny.nav")
    >>> _ = tiny.convert("netx", "audio.net", branch="audio")
    >>> net = neuroav.import_netx("audio.net")
    >>> net.steps == tiny.steps
    True
    """
    with installed("reading netx"):
        from neuroav_export.readers.netx import read_netx

        given = None
        if sample is not None:
            values = list(sample.values()) if isinstance(sample, Mapping) else [sample]
            if len(values) != 1:
                raise DataError(f"the sample holds {len(values)} inputs, a .net file has one")
            given = array(values[0], "the sample")
            if steps is None and given.ndim > 1:
                steps = given.shape[1]
        deployment = read_netx(
            path,
            steps=steps,
            target=target,
            classes=classes,
            input_shape=input_shape,
            input_message_bits=input_message_bits,
            dt_s=dt_s,
        )
        return _network(deployment, given, labels, place)


def _network(
    deployment: Deployment,
    given: np.ndarray | Mapping[str, np.ndarray] | None,
    labels: Any,
    place: bool,
) -> Network:
    """Return the network, its first samples inside, on cores where asked for."""
    from neuroav_export.run import on_cores

    if given is not None:
        inputs = given if isinstance(given, Mapping) else dict.fromkeys(deployment.fed, given)
        deployment = carrying(deployment, _shaped(deployment, inputs), labels)
    if place:
        first = None if deployment.probe is None else deployment.probe.inputs
        deployment = on_cores(deployment, first)
    return Network(deployment)


def _shaped(deployment: Deployment, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a sample with the axes of the network's inputs; it has as many values already."""
    shapes = Network(deployment).inputs
    found = {}
    for name, value in inputs.items():
        shape = shapes.get(name, value.shape[2:])
        fits = value.ndim > 1 and np.prod(value.shape[2:]) == np.prod(shape)
        found[name] = value.reshape(*value.shape[:2], *shape) if fits else value
    return found
