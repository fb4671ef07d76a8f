"""NIR's primitives as nodes of ours: forward Euler with one step length, factors folded into
weights.

    LIF      v' = v + (dt / tau) ((v_leak - v) + r x)
    CubaLIF  i' = i + (dt / tau_syn) (w_in x - i);  v' = v + (dt / tau_mem) ((v_leak - v) + r i')
    IF       v' = v + dt r x;   all three: spike where v' > v_threshold, then the reset
    LI, CubaLI, I: the same membranes without threshold

The membrane sees the current of its own step, as in snnTorch, Norse, SpikingJelly and Lava. What
multiplies x (r; r w_in dt / tau_syn; r dt) goes into the weights that bring x, or a Scale.
Source of the equations: Pedersen et al., Nat. Commun. 15, 8122 (2024), Table 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from neuroav import nodes as rn
from neuroav.errors import FileFormatError, UnsupportedNode
from neuroav_export.readers.nir_build import Builder, View
from neuroav_export.readers.nir_file import Primitive
from neuroav_export.readers.nir_graph import SPIKING
from neuroav_export.readers.nir_shapes import (
    geometry,
    matrix,
    numbers,
    ours,
    pooling,
    spread,
    whole,
)

WHOLE_STEP = 1e-3  # of a step: how far a delay may be from a whole number of them


def visit(b: Builder, name: str) -> None:
    """Add what the primitive ``name`` becomes; its prompt sources must be there.

    Those of a delay that closes a loop come later; ``Builder.close`` adds them.
    """
    p, sources = b.graph.primitives[name], b.graph.sources[name]
    if p.kind == "Input":
        view = b.enter(name)
    elif p.kind == "Delay" and any(s not in b.views for s in sources):
        view = b.put(name, rn.Delay(delay_steps(p, name, b.settings.dt)), (), b.shapes_in[name])
        b.open.append(name)
        if all(b.graph.primitives[s].kind in SPIKING for s in sources):
            b.binary.add(name)
    else:
        views = [b.source(name, s) for s in sources]
        if p.kind not in _AFTER_SUM and any(v.node in b.timeless for v in views):
            raise UnsupportedNode(
                f"{name}: a {p.kind} reads an integrator (I), whose value counts after the last "
                "step only; put I at the end, or use LI or IF inside the network"
            )
        view = HANDLERS[p.kind](b, name, p, b.added(name, p, views))
    if view.shape != b.shapes_in[name]:
        raise FileFormatError(
            f"{name}: gives shape {view.shape}, its readers expect {b.shapes_in[name]}"
        )
    b.views[name] = view
    if b.graph.readers(name) > 1 or name in b.looped:
        b.shared.add(view.node)


# --- one handler per primitive ---------------------------------------------------------------
def _affine(b: Builder, name: str, p: Primitive, x: View) -> View:
    weight = matrix(p, name)
    size = int(np.prod(x.shape))
    if weight.shape[1] != size:
        raise FileFormatError(
            f"{name}: weight {weight.shape} takes {weight.shape[1]} values, its input {x.shape} "
            f"has {size}; flatten it, or use weights that fit"
        )
    if x.factor is not None:
        weight = weight * np.broadcast_to(x.factor, x.shape).reshape(1, -1)
    bias = None
    if p.kind == "Affine":
        bias = numbers(p, name, "bias").reshape(-1)
        bias = np.full(len(weight), bias[0]) if bias.size == 1 else bias
        if bias.shape != weight.shape[:1]:
            raise FileFormatError(f"{name}: bias has {bias.size} values, weight {len(weight)} rows")
    return b.put(name, rn.Dense(weight, bias), (x.node,), (len(weight),))


def _conv(b: Builder, name: str, p: Primitive, x: View) -> View:
    weight, stride, padding, dilation = geometry(p, name)
    groups, out = whole(p, name, "groups", 1, 1), b.shapes_in[name]
    bias = numbers(p, name, "bias", 0.0).reshape(-1)
    bias = np.full(len(weight), bias[0]) if bias.size == 1 else bias
    if bias.size != len(weight):
        raise FileFormatError(f"{name}: bias has {bias.size} values, weight {len(weight)} channels")
    node = rn.Conv2d(weight, bias, stride, padding, dilation, groups)
    return b.put(name, node, (b.plain(name, x),), out)


def _pool(b: Builder, name: str, p: Primitive, x: View) -> View:
    make = rn.SumPool2d if p.kind == "SumPool2d" else rn.AvgPool2d
    return b.put(name, make(*pooling(p, name)), (b.plain(name, x),), b.shapes_in[name])


def _flatten(b: Builder, name: str, p: Primitive, x: View) -> View:
    factor = x.factor
    if factor is not None and factor.size > 1:
        factor = factor.reshape(b.shapes_in[name])
    node, shape = x.node, b.shapes_in[name]
    if len(shape) == 1 and b.nodes[node].__class__ in _MESSAGES and len(b.shapes[node]) > 1:
        node = b.put(name, rn.Flatten(), (node,), shape).node
    return View(node, shape, factor)


def _scale(b: Builder, name: str, p: Primitive, x: View) -> View:
    factor = spread(numbers(p, name, "scale"), x.shape, name, "scale")
    if factor.size == 1 and factor == 1:
        return x
    if factor.size == 1 and factor > 0 and x.factor is None:
        made = b.put(name, rn.Scale(float(factor)), (x.node,), b.shapes[x.node])
        return View(made.node, x.shape)
    return replace(x, factor=factor if x.factor is None else x.factor * factor)


def _threshold(b: Builder, name: str, p: Primitive, x: View) -> View:
    """x > threshold: neurons that forget in one step; of a sum of spikes, below 1: their OR."""
    level = b.number(p, name, "threshold", x)
    pool = b.nodes[x.node]
    alone = type(pool) is rn.SumPool2d and x.node not in b.shared and x.factor is None
    alone = alone and b.shapes[x.node] == ours(x.shape)
    if alone and isinstance(level, float) and 0 <= level < 1:
        (source,) = b.inputs[x.node]
        if source in b.binary:
            for table in (b.nodes, b.inputs, b.shapes):
                del table[x.node]
            assert isinstance(pool, rn.SumPool2d)
            either = rn.MaxPool2d(pool.kernel, pool.stride, pool.padding)
            return b.put(name, either, (source,), x.shape)
    x = b.place(name, x)
    level = b.number(p, name, "threshold", x)
    return b.neurons(name, rn.Lif(b.settings.dt_s, level), b.scaled(name, x, np.ones(())))


def _delay(b: Builder, name: str, p: Primitive, x: View) -> View:
    steps = delay_steps(p, name, b.settings.dt)
    node = b.plain(name, x)
    return b.put(name, rn.Delay(steps), (node,), x.shape) if steps else View(node, x.shape)


def delay_steps(p: Primitive, name: str, dt: float) -> int:
    """Return a NIR delay in whole steps; UnsupportedNode where it is none, or several differ."""
    array = numbers(p, name, "delay").reshape(-1)
    if (array != array[0]).any():
        raise UnsupportedNode(
            f"{name}: delays span {array.min():g} to {array.max():g}; a layer's values have one "
            "delay here: use one Delay node per value of the delay, each with the neurons it is for"
        )
    steps = float(array[0]) / dt
    if steps < 0 or abs(steps - round(steps)) > WHOLE_STEP or steps > 1e6:
        raise UnsupportedNode(
            f"{name}: a delay of {array[0]:g} is {steps:.6g} steps of {dt:g}, allowed are whole "
            "steps from 0; choose a step that divides it, or round the delay in the file"
        )
    return round(steps)


def _lif(b: Builder, name: str, p: Primitive, x: View) -> View:
    x = b.place(name, x)
    tau = b.tau_s(p, name, "tau", x)
    node = rn.Lif(tau, v_leak=b.number(p, name, "v_leak", x, 0.0), **b.fire(p, name, x))
    return b.neurons(name, node, b.scaled(name, x, b.gain(p, name, x, 1.0)))


def _cuba_lif(b: Builder, name: str, p: Primitive, x: View) -> View:
    x = b.place(name, x)
    tau_mem, tau_syn = b.tau_s(p, name, "tau_mem", x), b.tau_s(p, name, "tau_syn", x)
    leak = b.number(p, name, "v_leak", x, 0.0)
    node = rn.Lif(tau_mem, v_leak=leak, tau_syn_s=tau_syn, **b.fire(p, name, x))
    gain = b.gain(p, name, x, b.settings.dt_s / np.asarray(tau_syn))
    return b.neurons(name, node, b.scaled(name, x, gain))


def _if(b: Builder, name: str, p: Primitive, x: View) -> View:
    x = b.place(name, x)
    node = rn.If(**b.fire(p, name, x))
    return b.neurons(name, node, b.scaled(name, x, b.gain(p, name, x, b.settings.dt)))


def _uniform(value: rn.Number, name: str, field: str) -> float:
    if isinstance(value, float):
        return value
    raise UnsupportedNode(
        f"{name}: {field} spans {value.min():g} to {value.max():g}; membranes without threshold "
        "have one value for all here: use one, or one LI node per value"
    )


def _li(b: Builder, name: str, p: Primitive, x: View) -> View:
    syn, x = p.kind == "CubaLI", b.place(name, x)
    tau = _uniform(b.tau_s(p, name, "tau_mem" if syn else "tau", x), name, "tau")
    tau_syn = _uniform(b.tau_s(p, name, "tau_syn", x), name, "tau_syn") if syn else None
    leak = _uniform(b.number(p, name, "v_leak", x, 0.0), name, "v_leak")
    factor = 1.0 if tau_syn is None else b.settings.dt_s / tau_syn
    x = b.scaled(name, x, b.gain(p, name, x, factor))
    return b.neurons(name, rn.Li(tau, leak, tau_syn), x)


def _integrator(b: Builder, name: str, p: Primitive, x: View) -> View:
    """v after the last step is the mean of r x over the steps, times their whole duration."""
    gain = b.gain(p, name, x, b.settings.dt * b.settings.steps)
    x = b.scaled(name, x, gain)
    made = b.put(name, rn.TimeMean(), (x.node,), b.shapes[x.node])
    b.timeless.add(name)
    return View(made.node, x.shape)


_MESSAGES = (rn.Input, rn.Lif, rn.If, rn.MaxPool2d, rn.SumPool2d, rn.AvgPool2d, rn.Delay)
_AFTER_SUM = ("Affine", "Linear", "Scale", "Flatten")  # linear: the order of sum and it is free
HANDLERS: dict[str, Callable[[Builder, str, Primitive, View], View]] = {
    "Affine": _affine,
    "Linear": _affine,
    "Scale": _scale,
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
    "Threshold": _threshold,
    "Delay": _delay,
    "LIF": _lif,
    "CubaLIF": _cuba_lif,
    "IF": _if,
    "LI": _li,
    "CubaLI": _li,
    "I": _integrator,
}
