"""The real-valued twin, one population at a time, on the integer network's own messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.explain.rederive import offset
from neuroav.sim import real

Messages = Mapping[str, np.ndarray]


class Twin:
    """Runs nodes of the twin on messages of the integer network.

    messages: by population, (samples, steps, *shape). fed: what was fed, by the names of
    ``Deployment.fed``. All answers are float64 (samples, steps, *shape), one step after a mean.
    """

    def __init__(self, deployment: Deployment, messages: Messages, fed: Messages) -> None:
        self._deployment, self.messages, self._fed = deployment, messages, fed

    def covers(self, name: str) -> bool:
        """Return whether the twin has a node of this name that computes something."""
        node = self._deployment.real.nodes.get(name)
        return node is not None and not isinstance(node, rn.Input)

    def deployed(self, name: str) -> np.ndarray:
        """Return what the messages of a population stand for."""
        return self.meaning(name, self.messages[name])

    def meaning(self, name: str, messages: np.ndarray) -> np.ndarray:
        """Return the real values that messages of a population stand for."""
        graph = self._deployment.integer
        scale = Fraction(*graph.scales[name])
        below = offset(graph.populations[name], scale)
        return messages * float(scale) + float(below)

    def apply(self, name: str, values: Sequence[np.ndarray]) -> np.ndarray:
        """Return what the real node ``name`` gives for the values of its inputs."""
        real_graph = self._deployment.real
        x = [_time_first(v) for v in values]
        return self._array(real.evaluate(real_graph.nodes[name], x, real_graph.dt_s))

    def own(self, name: str) -> np.ndarray:
        """Return what the real node gives for the messages that the population received."""
        return self.cut(name, self._array(self._evaluate(name, {}, name)))

    def cut(self, name: str, value: np.ndarray) -> np.ndarray:
        """Return real values of a population, cut where its integers are, which changes no spike.

        So are currents of the host, and the counts of attention that has a cap.
        """
        graph, host = self._deployment.integer, self._deployment.host.get(name)
        if host is not None and host.sends == "current":
            return np.clip(value, 0.0, host.top * host.unit)
        cap = getattr(graph.populations[name], "cap", 0)
        return np.minimum(value, cap * float(Fraction(*graph.scales[name]))) if cap else value

    def input(self, name: str) -> np.ndarray:
        """Return the real synaptic input of neurons ``name``."""
        return self._array(self._evaluate(self._source(name), {}, ""))

    def bias(self, name: str) -> np.ndarray:
        """Return the part of that input that no message causes, (*shape)."""
        return self._silent().input(name)[0, 0]

    def _silent(self) -> Twin:
        """Return the twin on one sample without messages."""
        graph = self._deployment.integer
        none = {
            n: np.zeros((1, graph.steps, *p.shape), np.int32) for n, p in graph.populations.items()
        }
        return Twin(self._deployment, none, {})

    def _source(self, name: str) -> str:
        return self._deployment.real.inputs[name][0]

    def _array(self, value: Any) -> np.ndarray:
        return np.moveaxis(value.numpy(), 0, 1)

    def _evaluate(self, name: str, known: dict[str, Any], target: str) -> Any:
        """Return a node's value, float64 torch (steps, samples, *shape).

        Of populations it is what they sent, but for the ``target``: what the node makes of its
        inputs.
        """
        d = self._deployment
        if name not in known:
            if name in d.integer.populations and name != target:
                known[name] = _time_first(self.deployed(name))
            elif isinstance(d.real.nodes[name], rn.Input):
                known[name] = _time_first(self._fed[name])
            else:
                x = [self._evaluate(s, known, "") for s in d.real.inputs[name]]
                known[name] = real.evaluate(d.real.nodes[name], x, d.real.dt_s)
        return known[name]


def _time_first(value: np.ndarray) -> Any:
    whole = np.ascontiguousarray(np.moveaxis(value, 1, 0), np.float64)
    return real.import_torch().from_numpy(whole)


def agreement(
    deployed: np.ndarray, expected: np.ndarray, scale: tuple[int, int], spikes: bool
) -> np.ndarray:
    """Return where two values agree, bool (samples, steps, *shape), or (samples, 1, *shape).

    Spikes: equal. Graded values: within half a unit of the integer. expected has one step where it
    is a value of the whole sample; then the last frame is compared.
    """
    if expected.shape[1] != deployed.shape[1]:
        deployed = deployed[:, -1:]
    if spikes:
        return deployed == expected
    return np.abs(deployed - expected) <= 0.5 * scale[0] / scale[1] * (1 + 1e-9)


def is_spiking(pop: ig.Population) -> bool:
    """Return whether a population sends spikes."""
    single = isinstance(pop, ig.IntInput) and pop.max_count == 1
    return isinstance(pop, ig.SPIKING_CLASSES) or single
