"""Collects the nodes of a traced graph while a NIR graph is walked.

Factors that NIR writes at its neurons go into the weights that bring their input; views keep NIR's
shapes, so that flattening costs nothing where the next layer reads rows and columns anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from neuroav import nodes as rn
from neuroav.errors import FileFormatError, UnsupportedNode
from neuroav_export.readers.nir_file import Primitive
from neuroav_export.readers.nir_graph import SPIKING, FlatGraph, Late
from neuroav_export.readers.nir_shapes import Shape, numbers, ours, spread

_ONE = 4 * np.finfo(np.float64).eps  # r / tau * tau and the like round to this
_TAU = 1e-6  # relative: float32 files round dt / tau = 1


@dataclass(frozen=True)
class Settings:
    """dt_s: step in seconds; unit_s: seconds in the file's unit of time; reset, decay: as for
    ``read_nir``; inclusive: as for ``rn.Lif``; max_count, static: of inputs by name."""

    dt_s: float
    unit_s: float
    steps: int
    reset: str
    decay: str
    inclusive: bool
    max_count: Mapping[str, int]
    static: frozenset[str]

    @property
    def dt(self) -> float:
        """The step in the file's unit of time."""
        return self.dt_s / self.unit_s


@dataclass(frozen=True, eq=False)
class View:
    """What a primitive has become: a node, read with NIR's shape, times a factor per value.

    The factor waits for the weights that read it; None for 1.
    """

    node: str
    shape: Shape
    factor: np.ndarray | None = None


class Builder:
    """Collects nodes; ``views`` holds what each primitive has become. ``timeless``: nodes with one
    value per sample; ``binary``: nodes that send spikes only; ``open``: delays in loops, whose
    source comes later."""

    def __init__(self, graph: FlatGraph, shapes: Mapping[str, Shape], late: Late, s: Settings):
        self.graph, self.shapes_in, self.late, self.settings = graph, shapes, late, s
        self.nodes: dict[str, rn.Node] = {}
        self.inputs: dict[str, tuple[str, ...]] = {}
        self.shapes: dict[str, Shape] = {}
        self.views: dict[str, View] = {}
        self.shared: set[str] = set()
        self.timeless: set[str] = set()
        self.binary: set[str] = set()
        self.looped = {source for _, source in late}
        self.delays: dict[str, str] = {}
        self.open: list[str] = []

    def put(self, name: str, node: rn.Node, sources: tuple[str, ...], shape: Shape) -> View:
        """Add a node; shape: NIR's. Returns its view."""
        if name in self.nodes:
            raise FileFormatError(f"{name}: two nodes would bear this name; rename one")
        self.nodes[name], self.inputs[name], self.shapes[name] = node, sources, ours(shape)
        if any(s in self.timeless for s in sources):
            self.timeless.add(name)
        passes = isinstance(node, (rn.Delay, rn.Reshape, rn.Flatten, rn.MaxPool2d))
        if isinstance(node, (rn.Lif, rn.If)) or (passes and set(sources) & self.binary):
            self.binary.add(name)
        return View(name, shape)

    def enter(self, name: str) -> View:
        s, shape = self.settings, self.shapes_in[name]
        node = rn.Input(ours(shape), s.max_count.get(name, 255), name in s.static)
        return self.put(name, node, (), shape)

    def source(self, name: str, source: str) -> View:
        """Return what ``name`` reads from ``source``: late, where it closes a loop."""
        if (name, source) not in self.late:
            return self.views[source]
        delay = self.delays.get(source) or f"{source}.previous"
        shape = self.shapes_in[source]
        if delay not in self.nodes:
            self.put(delay, rn.Delay(1), (source,), shape)
            if self.graph.primitives[source].kind in (*SPIKING, "Threshold"):
                self.binary.add(delay)
        return View(delay, shape)

    def close(self) -> None:
        """Give the delays in loops what they read."""
        for name in self.open:
            p, sources = self.graph.primitives[name], self.graph.sources[name]
            x = self.added(name, p, [self.source(name, s) for s in sources])
            self.inputs[name] = (self.plain(name, x),)

    def added(self, name: str, p: Primitive, views: list[View]) -> View:
        """Return the sum of all that runs into a node."""
        if len(views) == 1:
            return views[0]
        shapes = {v.shape for v in views}
        if len(shapes) != 1:
            raise FileFormatError(f"{name}: edges of shapes {sorted(shapes)} meet; make them equal")
        read = [self.plain(f"{name}.{i}", v) for i, v in enumerate(views)]
        if len({n in self.timeless for n in read}) != 1:
            raise UnsupportedNode(
                f"{name}: adds an integrator's value and one of every step; end the network in one"
            )
        own = p.kind == "Scale" and bool((numbers(p, name, "scale") == 1).all())
        return self.put(name if own else f"{name}.sum", rn.Add(), tuple(read), views[0].shape)

    def plain(self, name: str, view: View) -> str:
        """Return a node that holds exactly the view: its shape on our axes, its factor applied."""
        if view.factor is not None:
            view = self.scaled(name, replace(view, factor=None), view.factor)
        shape = ours(view.shape)
        if self.shapes[view.node] == shape:
            return view.node
        node = rn.Flatten() if len(shape) == 1 else rn.Reshape(shape)
        return self.put(f"{name}.reshape", node, (view.node,), view.shape).node

    # --- factors ---------------------------------------------------------------------------
    def scaled(self, name: str, view: View, factor: np.ndarray) -> View:
        """Return the view times a factor, () or of NIR's shape, in the weights before it if it can.

        Else a Scale, or weights of one synapse per value; UnsupportedNode where none fits.
        """
        if view.factor is not None:
            factor, view = view.factor * factor, replace(view, factor=None)
        if (np.abs(factor - 1) <= _ONE).all():
            return view
        if self._fold(view.node, factor):
            return view
        actual, whole_view = self.shapes[view.node], View(view.node, view.shape)
        if factor.size == 1 and factor > 0:
            made = self.put(f"{name}.scale", rn.Scale(float(factor)), (view.node,), actual)
            return replace(whole_view, node=made.node)
        each = np.broadcast_to(factor, view.shape).reshape(actual)
        if len(actual) == 1:
            node: rn.Node = rn.Dense(np.diag(each))
        elif (each == each[:, :1, :1]).all():
            node = rn.Conv2d(each[:, :1, :1, None].copy(), groups=actual[0])
        else:
            raise UnsupportedNode(
                f"{name}: {view.node} is multiplied by a factor of its own at every place, and no "
                "layer before it can hold them; put a Conv2d or Affine there, or use one factor "
                "per channel"
            )
        return replace(whole_view, node=self.put(f"{name}.scale", node, (view.node,), actual).node)

    def _fold(self, node_name: str, factor: np.ndarray) -> bool:
        """Multiply the outputs of a layer that nobody else reads; False where that cannot be."""
        if not self._foldable(node_name, factor):
            return False
        node, shape = self.nodes[node_name], self.shapes[node_name]
        if isinstance(node, rn.Add):
            for source in self.inputs[node_name]:
                self._fold(source, factor)
            return True
        if isinstance(node, rn.Scale):
            self.nodes[node_name] = rn.Scale(node.factor * float(factor))
            return True
        assert isinstance(node, (rn.Dense, rn.Conv2d))
        each = factor if factor.size == 1 else factor.reshape(shape)
        rows = np.broadcast_to(each, shape).reshape(len(node.weight), -1)[:, 0]
        weight = node.weight * rows.reshape(-1, *[1] * (node.weight.ndim - 1))
        bias = None if node.bias is None else node.bias * rows
        self.nodes[node_name] = replace(node, weight=weight, bias=bias)
        return True

    def _foldable(self, name: str, factor: np.ndarray) -> bool:
        node, shape = self.nodes[name], self.shapes[name]
        if name in self.shared or name in self.timeless:
            return False
        if isinstance(node, rn.Add):
            return all(self._foldable(s, factor) for s in self.inputs[name])
        if isinstance(node, rn.Scale):
            return factor.size == 1 and bool(factor > 0)
        if not isinstance(node, (rn.Dense, rn.Conv2d)) or factor.size == 1:
            return isinstance(node, (rn.Dense, rn.Conv2d))
        each = factor.reshape(shape)
        return len(shape) == 1 or bool((each == each[:, :1, :1]).all())

    # --- neurons ---------------------------------------------------------------------------
    def place(self, name: str, view: View) -> View:
        """Return what neurons read as they lie: on the axes of what brings it, unless in a loop."""
        return View(self.plain(name, view), view.shape) if name in self.looped else view

    def number(self, p: Primitive, name: str, field: str, x: View, default=None) -> rn.Number:
        """Return a neuron parameter: a float, or an array on the axes of the node they read."""
        found = spread(numbers(p, name, field, default), x.shape, name, field)
        if found.size == 1:
            return float(found)
        return np.array(found).reshape(self.shapes[x.node])

    def tau_s(self, p: Primitive, name: str, field: str, x: View) -> rn.Number:
        """Return a time constant in seconds, for forward Euler; UnsupportedNode below the step."""
        tau = np.asarray(self.number(p, name, field, x)) * self.settings.unit_s
        dt, low = self.settings.dt_s, float(tau.min())
        exact = self.settings.decay == "exponential"
        if low <= 0 or (not exact and low < dt * (1 - _TAU)):
            raise UnsupportedNode(
                f"{name}: {field} is {low / self.settings.unit_s:g}, in seconds {low:g}, the step "
                f"{dt:g} s; forward Euler needs dt <= {field}. NIR's times are in seconds: give "
                "the step the network was made with as dt_s, or the file's unit as unit_s"
            )
        tau = -dt / np.expm1(-dt / tau) if exact else np.maximum(tau, dt)
        return float(tau) if tau.ndim == 0 else tau

    def gain(self, p: Primitive, name: str, x: View, per_step: float | np.ndarray) -> np.ndarray:
        """Return what multiplies the input of a neuron: r times w_in times ``per_step``."""
        r = spread(numbers(p, name, "r", 1.0), x.shape, name, "r")
        w_in = spread(numbers(p, name, "w_in", 1.0), x.shape, name, "w_in")
        part = np.asarray(per_step)
        return r * w_in * (part if part.ndim == 0 else part.reshape(x.shape))

    def fire(self, p: Primitive, name: str, x: View) -> dict:
        """Return threshold and reset of spiking neurons."""
        own = p.metadata if self.graph.metadata.get("format") == "neuroav-nir" else {}
        level = self.number(p, name, "v_threshold", x)
        stated = own.get("inclusive") == "true"
        if self.settings.inclusive and not stated:
            below = np.nextafter(np.float32(level), np.float32(-np.inf)).astype(np.float64)
            level = float(below) if below.ndim == 0 else below
        reset = "value" if self.settings.reset == "value" else "subtract"
        return {
            "v_threshold": level,
            "v_reset": self.number(p, name, "v_reset", x, 0.0),
            "inclusive": stated or self.settings.inclusive,
            "reset": "subtract" if own.get("reset") == "subtract" else reset,
        }

    def neurons(self, name: str, node: rn.Node, x: View) -> View:
        """Add neurons on the axes of what they read."""
        late = self.settings.reset == "subtract-late"
        late = late and self.graph.metadata.get("format") != "neuroav-nir"
        if late and isinstance(node, rn.Lif) and node.reset == "subtract":
            x = self._late_reset(name, node, x)
        made = self.put(name, node, (x.node,), self.shapes[x.node])
        return View(made.node, x.shape)

    def _late_reset(self, name: str, node: rn.Lif, x: View) -> View:
        """Return the input of neurons from which a spike takes the threshold a step later.

        Taken off at once, a threshold has decayed by the next step, to (1 - dt / tau) of itself.
        The rest, dt / tau of it, comes by a synapse of each neuron onto itself, of weight
        -v_threshold; a second one, a step later, takes back what the synaptic current keeps of it.
        """
        shape = self.shapes[x.node]
        parts = [x.node, self._to_itself(name, 1, -np.asarray(node.v_threshold), shape)]
        if node.tau_syn_s is not None:
            kept = 1 - self.settings.dt_s / np.asarray(node.tau_syn_s)
            parts.append(self._to_itself(name, 2, kept * node.v_threshold, shape))
        return replace(x, node=self.put(f"{name}.charge", rn.Add(), tuple(parts), shape).node)

    def _to_itself(self, name: str, steps: int, weight: np.ndarray, shape: Shape) -> str:
        """Add synapses of neurons onto themselves that act ``steps`` later; return their node."""
        delay = f"{name}.previous" if steps == 1 else f"{name}.previous{steps}"
        if delay not in self.nodes:
            self.put(delay, rn.Delay(steps), (name,), shape)
            self.binary.add(delay)
        each = np.broadcast_to(weight, shape)
        if len(shape) == 1:
            layer: rn.Node = rn.Dense(np.diag(each))
        elif (each == each[:, :1, :1]).all():
            layer = rn.Conv2d(each[:, :1, :1, None].copy(), groups=shape[0])
        else:
            raise UnsupportedNode(
                f"{name}: v_threshold or tau_syn differs within a channel; reset='subtract-late' "
                "needs one per channel, or neurons on one axis"
            )
        return self.put(f"{name}.reset{steps}", layer, (delay,), shape).node
