"""The deployment: everything that is simulated, written to other formats and reported on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from neuroav.errors import DataError
from neuroav.graph import SpikingGraph
from neuroav.hardware import Profile
from neuroav.integer import IntGraph
from neuroav.synapses import synapse_count

Inputs = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Probe:
    """A few samples carried inside the file, so that it can be run and checked anywhere.

    inputs: by input name, integers (samples, steps, *shape). labels: (samples,) int64.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Deployment:
    """One compiled network.

    integer: what runs on the target. real: its real-valued twin (lowered, batch norm folded); the
    populations bear the names of the twin's nodes. saturations: weights, biases and thresholds
    clipped to fit, by population. provenance: plain JSON values (versions, seed, data, hashes).
    content_hash: sha256 of the file it was read from or written to, '' before that.
    """

    integer: IntGraph
    real: SpikingGraph
    profile: Profile
    classes: tuple[str, ...]
    saturations: Mapping[str, int]
    provenance: Mapping[str, object] = field(default_factory=dict)
    probe: Probe | None = None
    content_hash: str = ""

    @property
    def neurons(self) -> int:
        """Neurons on the chip (inputs are not)."""
        graph = self.integer
        return sum(
            graph.populations[n].state_neurons(graph.steps)
            for n in graph.order
            if n not in graph.inputs
        )

    @property
    def synapses(self) -> int:
        """Non-zero synapses, shared weights counted unrolled."""
        return sum(synapse_count(self.integer, n) for n in self.integer.order)


def check_inputs(graph: IntGraph, inputs: Inputs) -> dict[str, np.ndarray]:
    """Return ``inputs`` as integer arrays (samples, steps, *shape); DataError names what misfits.

    Accepts any integer dtype, or floats that are whole numbers. Counts must lie in
    0..max_count of their input.
    """
    expected = graph.inputs
    if set(inputs) != set(expected):
        raise DataError(f"inputs are {sorted(inputs)}, the network needs {sorted(expected)}")
    checked = {}
    for name, population in expected.items():
        value = np.asarray(inputs[name])
        if value.shape[1:] != (graph.steps, *population.shape):
            raise DataError(
                f"input {name!r}: shape is {value.shape}, needs (samples, "
                f"{', '.join(map(str, (graph.steps, *population.shape)))})"
            )
        if value.dtype.kind == "f":
            if not np.isfinite(value).all():
                raise DataError(f"input {name!r}: holds NaN or infinite values, needs event counts")
            if (value != np.rint(value)).any():
                raise DataError(f"input {name!r}: holds fractions, needs whole event counts")
        elif value.dtype.kind not in "iub":
            raise DataError(f"input {name!r}: dtype is {value.dtype}, needs integers")
        low, high = value.min(initial=0), value.max(initial=0)
        if low < 0 or high > population.max_count:
            raise DataError(
                f"input {name!r}: counts span {low}..{high}, allowed 0..{population.max_count}"
            )
        checked[name] = value.astype(np.int32)
    if len({len(v) for v in checked.values()}) > 1:
        raise DataError(
            "inputs differ in their number of samples: "
            + ", ".join(f"{n} has {len(v)}" for n, v in checked.items())
        )
    return checked
