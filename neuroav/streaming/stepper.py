"""A deployment as a machine that is fed: frame by frame, or a window at a time.

``Stepper`` keeps the states of a network between frames; every number it gives is that of
``reference`` or ``fast`` for the same frames since the last ``reset``. Networks with attention or
sums over a whole sample cannot be stepped; ``WindowRunner`` runs any network on the frames of one
window, with the layers prepared once. Neither grows with time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from neuroav.deployment import Deployment, check_inputs
from neuroav.errors import ConfigError, DataError
from neuroav.sim.stepping import Frame, stepping

BACKENDS = ("fast", "reference")
Arrays = dict[str, np.ndarray]


class Stepper:
    """The integer network one frame at a time.

    backend: 'fast' (needs torch) or 'reference'; the same numbers. Raises UnsupportedNode, naming
    the population, for a network that answers only complete samples.
    """

    def __init__(self, deployment: Deployment, backend: str = "fast") -> None:
        self._graph = deployment.integer
        self._steps = stepping(backend, self._graph, deployment.profile.arithmetic)
        self.frames = 0

    def step(self, inputs: Frame, wanted: tuple[str, ...] | None = None) -> Arrays:
        """Take one frame in; return what populations answer to it, int32 of their shapes.

        inputs: whole numbers, of the shape of every input of the integer graph. wanted: names of
        populations, None for all. Outputs are in the population's own time frame. Raises DataError
        for what is no frame, OutOfRange where a register overflows.
        """
        frame = self._checked(inputs)
        found = self._steps.step(frame, self._graph.order if wanted is None else wanted)
        self.frames += 1
        return found

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a sample."""
        self._steps.reset()
        self.frames = 0

    @property
    def state_bytes(self) -> int:
        """Bytes kept from one frame to the next."""
        return self._steps.state_bytes

    def _checked(self, inputs: Frame) -> Arrays:
        expected, checked = self._graph.inputs, {}
        if set(inputs) != set(expected):
            raise DataError(f"a frame of {sorted(inputs)}, the network needs {sorted(expected)}")
        for name, pop in expected.items():
            value = np.asarray(inputs[name])
            if value.shape != pop.shape or value.dtype.kind not in "iub":
                raise DataError(
                    f"input {name!r}: a frame of shape {value.shape}, dtype {value.dtype}; needs "
                    f"{pop.shape}, integers"
                )
            low, high = int(value.min(initial=0)), int(value.max(initial=0))
            if low < 0 or high > pop.max_count:
                raise DataError(
                    f"input {name!r}: counts span {low}..{high}, allowed 0..{pop.max_count}"
                )
            checked[name] = value
        return checked


class WindowRunner:
    """Any network, the frames of one window at a time."""

    def __init__(self, deployment: Deployment, backend: str = "fast") -> None:
        if backend not in BACKENDS:
            raise ConfigError(f"backend is {backend!r}; allowed are {' and '.join(BACKENDS)}")
        self._graph = deployment.integer
        make = _fast if backend == "fast" else _reference
        self._run = make(deployment)

    def run(
        self, inputs: Mapping[str, np.ndarray], wanted: tuple[str, ...] | None = None
    ) -> Arrays:
        """Return what populations send in every step of a window, int32 (steps, *shape).

        inputs: whole numbers (steps, *shape) by input. Raises DataError, OutOfRange.
        """
        batch = {name: np.asarray(value)[None] for name, value in inputs.items()}
        found = self._run(check_inputs(self._graph, batch))
        return {name: found[name] for name in (wanted or self._graph.order)}


def _reference(deployment: Deployment) -> Callable[[Arrays], Arrays]:
    from neuroav.sim import reference

    graph, arith = deployment.integer, deployment.profile.arithmetic

    def run(batch: Arrays) -> Arrays:
        frames = {n: v[0].astype(np.int64) for n, v in batch.items()}
        outputs, _ = reference.run_sample(graph, arith, frames)
        return {n: v.astype(np.int32) for n, v in outputs.items()}

    return run


def _fast(deployment: Deployment) -> Callable[[Arrays], Arrays]:
    from neuroav.sim.fast import run_batch
    from neuroav.sim.populations import Layer
    from neuroav.sim.real import import_torch

    torch = import_torch()
    graph, arith = deployment.integer, deployment.profile.arithmetic
    layers = {n: Layer(graph, n, arith, "cpu") for n in graph.order if n not in graph.inputs}

    def run(batch: Arrays) -> Arrays:
        largest = {n: int(v.max(initial=0)) for n, v in batch.items()}
        with torch.inference_mode():
            outputs, _ = run_batch(graph, layers, batch, largest, "cpu", False)
        return {n: v[0] for n, v in outputs.items()}

    return run
