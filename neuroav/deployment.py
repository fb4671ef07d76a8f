"""The deployment: everything that is simulated, written to other formats and reported on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from neuroav.errors import DataError
from neuroav.graph import SpikingGraph
from neuroav.hardware import Profile
from neuroav.host import HostLayer, encode, sources
from neuroav.integer import IntGraph
from neuroav.placement import Placement
from neuroav.synapses import synapse_count

Inputs = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Probe:
    """A few samples carried inside the file, so that it can be run and checked anywhere.

    inputs: by name of what is fed, (samples, steps, *shape): integers, or float32 for a static
    input. labels: (samples,) int64, -1 where nobody said which class it is.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class Deployment:
    """One compiled network.

    integer: what runs on the target. real: its real-valued twin (lowered, batch norm folded); the
    populations bear the names of the twin's nodes. saturations: weights, biases and thresholds
    clipped to fit, by population. host: layers that the host computes, by the input of ``integer``
    that they fill (``neuroav.host``). provenance: plain JSON values (versions, seed, data, hashes).
    content_hash: sha256 of the file it was read from or written to, '' before that. placement:
    where the neurons lie on the target, None where they were not placed.
    """

    integer: IntGraph
    real: SpikingGraph
    profile: Profile
    classes: tuple[str, ...]
    saturations: Mapping[str, int]
    provenance: Mapping[str, object] = field(default_factory=dict)
    probe: Probe | None = None
    content_hash: str = ""
    host: Mapping[str, HostLayer] = field(default_factory=dict)
    placement: Placement | None = None

    @property
    def fed(self) -> tuple[str, ...]:
        """Names of what is fed: event counts, or the real values behind host layers."""
        return sources(self.host, self.integer.inputs)

    @property
    def static(self) -> frozenset[str]:
        """Those of ``fed`` that are real values, the same in every step."""
        return frozenset(layer.source for layer in self.host.values())

    @property
    def host_macs(self) -> int:
        """Multiply-accumulates of the host per sample."""
        return sum(layer.macs for layer in self.host.values())

    def counts(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """Return what enters ``integer``, int32 (samples, steps, *shape), computing host layers.

        inputs: by the names of ``fed``. DataError names what misfits (``check_inputs``).
        """
        if set(inputs) != set(self.fed):
            raise DataError(f"inputs are {sorted(inputs)}, the network needs {sorted(self.fed)}")
        graph, arith = self.integer, self.profile.arithmetic
        given = {
            n: encode(self.host[n], inputs[self.host[n].source], graph.steps, arith)
            if n in self.host
            else inputs[n]
            for n in graph.inputs
        }
        return check_inputs(graph, given)

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
