"""ONNX: one time step of the integer graph, with the neurons' state going in and coming out.

A run is a loop over frames that feeds every ``NAME/v_next`` back as ``NAME/v``; states start at 0.
All tensors are int64 (batch, *shape), except the flag ``out_of_range`` (batch,) bool: true where an
event count or a register left its range in this step, where the other executors raise. Every
population is computed in its own time frame, as in ``neuroav.sim.reference``: the one step per
projection and the delays that align branches are removed.

Consumes the integer graph; the results are the reference's bit for bit. Convolutions and matrix
products are float32 sums of whole numbers. A bound computed from the weights and the largest
message proves them exact (below 2^24); where it does not, the message is cut into digits for which
it does.
A runtime that rounds inside a sum (TF32, Winograd) is not exact.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.errors import OutOfRange, UnsupportedNode
from neuroav.files import written_whole
from neuroav.fixed import Arithmetic, shift_left
from neuroav.synapses import row_sum
from neuroav_export.writers.base import Written, facts, missing

FORMAT, VERSION = "neuroav-onnx-step", 1
OPSET, IR_VERSION = 18, 9  # of ONNX 1.14; later runtimes read them
CONSUMES = "integer"
CARRIES = {
    "IntInput": "graph input `NAME`: event counts of one step",
    "IntHostCurrent": "graph input `NAME`: what `Deployment.counts` gives for a step",
    "IntLif": "`fixed.lif_step` in int64; states `NAME/u`, `NAME/v` where a decay leaves any",
    "IntOr": "Greater than 0",
    "IntSum": "the sum of its projections",
    "IntReadout": "Add to the state `NAME/v`; its last step's value holds the class scores",
    "IntConv2d": "Conv in float32, proved exact",
    "IntDense": "MatMul in float32, proved exact",
    "IntIdentity": "Mul in int64",
    "IntPool": "Conv with unit weights",
    "IntSpatialSum": "ReduceSum in int64",
    "IntAnd": "Greater than 1",
    "IntProduct": "Mul in int64; a shift by Sub of Mod, then Div, which rounds down",
    "IntWinner": "ArgMax of the flattened sum, which gives the first among equals; Equal",
    "IntSpatialAttention": "two Einsum in float32, proved exact, saturated by Min",
    "IntSpread": "Mul by ones",
    "IntPlace": "Pad with zeros",
}
UNSUPPORTED: dict[str, str] = {
    "IntTimeSum": "needs the whole sample before it answers; a step model sees one step",
    "IntTemporalAttention": "needs the whole sample before it answers; a step model sees one step",
}
FLAG = "out_of_range"
EXACT = 1 << 24  # float32 holds all integers up to here


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise missing("onnx") from None
    return onnx


def write(deployment: Deployment, path: str | Path) -> Written:
    """Write the step model of ``deployment``, checked by ONNX's own checker and shape inference.

    Raises OutOfRange where no split of a layer's messages makes its sums exact in float32, and
    MissingDependency.
    """
    onnx = _onnx()
    model = step_model(deployment)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return Written("onnx", Path(path), deployment.integer.order, {}, deployment.content_hash)


def step_model(deployment: Deployment) -> Any:
    """Return the step model as an ``onnx.ModelProto``."""
    onnx = _onnx()
    graph, arith = deployment.integer, deployment.profile.arithmetic
    build = _Builder()
    largest: dict[str, int] = {}
    for name in graph.order:
        largest[name] = _population(build, graph, name, arith, largest)
    build.finish()
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            build.nodes, "step", build.inputs, build.outputs, list(build.constants.values())
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="neuroav",
        doc_string="One time step of a spiking network; see the metadata and docs/formats.md.",
    )
    onnx.helper.set_model_props(model, _metadata(deployment, build.states))
    return model


def _metadata(deployment: Deployment, states: dict[str, str]) -> dict[str, str]:
    return facts(deployment, FORMAT, VERSION) | {
        "values": "quantized integers, as deployed; nothing is dequantized",
        "scales": json.dumps({n: list(s) for n, s in deployment.integer.scales.items()}),
        "states": json.dumps(states),
        "time": "each population in its own time frame: projection steps and branch delays removed",
        "scores": "the output at the last of `steps` steps; states are 0 before the first",
        "flag": f"{FLAG}: a count or register left its range; nothing is valid from there on",
    }


class _Builder:
    """The parts of an ONNX graph under construction; methods return names of tensors."""

    def __init__(self) -> None:
        onnx = _onnx()
        self.helper, self.types, self.from_array = (
            onnx.helper,
            onnx.TensorProto,
            onnx.numpy_helper.from_array,
        )
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.states: dict[str, str] = {}  # state in -> state out
        self._state_outputs: list[Any] = []
        self._flags: list[str] = []
        self.where = ""  # the population being built

    def op(self, kind: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        """Add an operator; its result is called ``result`` or gets a name of its own."""
        result = result or f"{self.where}/{kind}.{len(self.nodes)}"
        node = self.helper.make_node(kind, list(inputs), [result], name=result, **attributes)
        self.nodes.append(node)
        return result

    def constant(self, value: Any, dtype: type = np.int64) -> str:
        """Add a constant; equal scalars share one."""
        array: np.ndarray = np.asarray(value, dtype)
        name = (
            f"{array.dtype}({array})"
            if array.ndim == 0
            else f"{self.where}/constant.{len(self.constants)}"
        )
        if name not in self.constants:
            self.constants[name] = self.from_array(array, name)
        return name

    def tensor(self, name: str, shape: ig.Shape) -> Any:
        """Return the description of an int64 tensor (batch, *shape)."""
        return self.helper.make_tensor_value_info(name, self.types.INT64, ["batch", *shape])

    def state(self, register: str, shape: ig.Shape) -> str:
        """Add a state to the model's inputs and outputs; ``keep`` gives it its next value."""
        name = f"{self.where}/{register}"
        self.inputs.append(self.tensor(name, shape))
        self.states[name] = f"{name}_next"
        self._state_outputs.append(self.tensor(self.states[name], shape))
        return name

    def keep(self, state: str, value: str) -> None:
        """Let ``value`` be the next value of a state."""
        self.op("Identity", value, result=self.states[state])

    def check(self, x: str, low: int, high: int, axes: int) -> str:
        """Return x; raise the flag of every sample with a value outside low..high."""
        over = self.constant(range(1, axes + 1))
        least = self.op("ReduceMin", x, over, keepdims=0)
        most = self.op("ReduceMax", x, over, keepdims=0)
        self._flags.append(self.op("Less", least, self.constant(low)))
        self._flags.append(self.op("Greater", most, self.constant(high)))
        return x

    def finish(self) -> None:
        """Close the flag; list the states behind the populations among the outputs."""
        self.where = FLAG
        flag = self._flags[0]
        for other in self._flags[1:]:
            flag = self.op("Or", flag, other)
        self.op("Identity", flag, result=FLAG)
        info = self.helper.make_tensor_value_info(FLAG, self.types.BOOL, ["batch"])
        self.outputs += [*self._state_outputs, info]


# --- populations -----------------------------------------------------------------------------
def _population(
    b: _Builder, graph: ig.IntGraph, name: str, arith: Arithmetic, largest: dict[str, int]
) -> int:
    """Add one population; return the largest magnitude its message can have.

    largest: the same of its sources.
    """
    pop = graph.populations[name]
    b.where = name
    if isinstance(pop, ig.IntInput):
        b.inputs.append(b.tensor(name, pop.shape))
        b.check(name, 0, pop.max_count, len(pop.shape))
        return pop.max_count
    b.outputs.append(b.tensor(name, pop.shape))
    if type(pop).__name__ in UNSUPPORTED:
        raise UnsupportedNode(
            f"{name}: the onnx writer cannot carry {type(pop).__name__}: "
            f"{UNSUPPORTED[type(pop).__name__]}; use a causal form of attention"
        )
    sums, reach = [], []
    for port in range(pop.ports):
        mine = [(p, graph.populations[p.source].shape) for p in pop.projections if p.port == port]
        parts = [_synaptic_sum(b, p, shape, largest[p.source], pop.shape) for p, shape in mine]
        sums.append(_total(b, parts))
        reach.append(sum(row_sum(p, shape) * largest[p.source] for p, shape in mine))
    if isinstance(pop, ig.IntSpatialAttention):
        return _attention(b, pop, sums)
    if isinstance(pop, ig.IntProduct):
        return _product(b, pop, sums, reach, (1 << (arith.payload_bits - 1)) - 1)
    return _neurons(b, name, pop, sums[0], arith, reach[0])


def _product(
    b: _Builder, pop: ig.IntProduct, sums: list[str], reach: list[int], payload: int
) -> int:
    """Products of one step, at most ``reach`` at each port; return the largest message."""
    most, axes = (1 << ig.PRODUCT_BITS) - 1, len(pop.shape)
    for factor, largest in zip(sums, reach, strict=True):
        if largest > most:
            b.check(factor, -most, most, axes)
    product = b.op("Mul", *sums)
    if pop.shift:
        b.check(product, -most, most, axes)
        part = b.constant(1 << pop.shift)
        product = b.op("Div", b.op("Sub", product, b.op("Mod", product, part)), part)
    b.op("Identity", b.check(product, -payload, payload, axes), result=b.where)
    return min(ig.shifted(reach[0] * reach[1], pop.shift), payload)


def _winner(b: _Builder, pop: ig.IntWinner, a: str) -> None:
    """1 where the flattened sum is largest, first among equals."""
    first = b.op("ArgMax", b.op("Flatten", a, axis=1), axis=1, keepdims=1)
    spikes = b.op("Cast", b.op("Equal", first, b.constant(range(pop.neurons))), to=b.types.INT64)
    b.op("Reshape", spikes, b.constant([-1, *pop.shape]), result=b.where)


def _attention(b: _Builder, pop: ig.IntSpatialAttention, sums: list[str]) -> int:
    """Counts of one step; return the largest."""
    split = b.constant([-1, pop.heads, pop.head_channels, pop.tokens])
    q, k, v = (b.op("Cast", b.op("Reshape", x, split), to=b.types.FLOAT) for x in sums)
    state = _saturated(b, b.op("Einsum", k, v, equation="bhim,bhjm->bhij"), pop.cap)
    counts = _saturated(b, b.op("Einsum", q, state, equation="bhin,bhij->bhjn"), pop.cap)
    whole = b.op("Cast", counts, to=b.types.INT64)
    b.op("Reshape", whole, b.constant([-1, *pop.shape]), result=b.where)
    return pop.cap or pop.tokens * pop.head_channels


def _saturated(b: _Builder, x: str, cap: int) -> str:
    return b.op("Min", x, b.constant(cap, np.float32)) if cap else x


def _neurons(
    b: _Builder, name: str, pop: ig.Population, a: str, arith: Arithmetic, reach: int
) -> int:
    """Add the neurons that receive the sum ``a``, at most ``reach``; return as ``_population``."""
    payload, axes = (1 << (arith.payload_bits - 1)) - 1, len(pop.shape)
    if isinstance(pop, ig.IntLif):
        _lif(b, pop, a, arith)
        return 1
    if isinstance(pop, ig.IntOr):
        spike = b.op("Greater", b.check(a, -arith.sum_max, arith.sum_max, axes), b.constant(0))
        b.op("Cast", spike, to=b.types.INT64, result=name)
        return 1
    if isinstance(pop, ig.IntAnd):
        spike = b.op("Greater", b.check(a, -arith.sum_max, arith.sum_max, axes), b.constant(1))
        b.op("Cast", spike, to=b.types.INT64, result=name)
        return 1
    if isinstance(pop, ig.IntWinner):
        _winner(b, pop, b.check(a, -payload, payload, axes))
        return 1
    if isinstance(pop, ig.IntSum):
        b.op("Identity", b.check(a, -payload, payload, axes), result=name)
        return min(reach, payload)
    if not isinstance(pop, ig.IntReadout):
        raise UnsupportedNode(f"{name}: the onnx writer cannot carry {type(pop).__name__}")
    v = b.state("v", pop.shape)
    total = _total(b, [v, a, b.constant(pop.bias)])
    b.op("Identity", b.check(total, -payload, payload, axes), result=name)
    b.keep(v, name)
    return payload


def _lif(b: _Builder, pop: ig.IntLif, a: str, arith: Arithmetic) -> None:
    """``fixed.lif_step``, range checks as flags."""
    one, shift, axes = 1 << arith.decay_bits, 1 << arith.input_shift, len(pop.shape)
    keep_u, keep_v = one - pop.decay_u - 1, one - pop.decay_v
    limit_u = (1 << (arith.current_bits - 1)) - 1
    limit_v = (1 << (arith.voltage_bits - 1)) - 1
    u = b.op("Mul", a, b.constant(shift))
    if keep_u:
        before = b.state("u", pop.shape)
        u = b.op("Add", _decay(b, before, keep_u, one), u)
        b.keep(before, u)
    b.check(u, -limit_u, limit_u, axes)
    v = b.op("Add", u, b.constant(shift_left(pop.bias_mantissa, pop.bias_exponent)))
    if keep_v:
        before = b.state("v", pop.shape)
        v = b.op("Add", _decay(b, before, keep_v, one), v)
    b.check(v, -limit_v, limit_v, axes)
    spike = b.op("Greater", v, b.constant(pop.threshold * shift))
    b.op("Cast", spike, to=b.types.INT64, result=b.where)
    if keep_v:
        b.keep(before, b.op("Where", spike, b.constant(0), v))


def _decay(b: _Builder, x: str, keep: int, one: int) -> str:
    """Return sign(x) * floor(|x| * keep / one): ``fixed.decay`` by one - keep."""
    if keep == one:
        return x
    product = b.op("Mul", b.op("Abs", x), b.constant(keep))
    return b.op("Mul", b.op("Sign", x), b.op("Div", product, b.constant(one)))


def _total(b: _Builder, parts: list[str]) -> str:
    """Return the sum of tensors."""
    total = parts[0]
    for part in parts[1:]:
        total = b.op("Add", total, part)
    return total


# --- projections -----------------------------------------------------------------------------
def _synaptic_sum(
    b: _Builder, p: ig.Projection, source: ig.Shape, largest: int, target: ig.Shape
) -> str:
    """Return the sum over weight * message of one projection, int64 (batch, *target).

    source: shape of the source population. largest: the largest magnitude of its message.
    """
    x, gain = p.source, row_sum(p, source)
    if isinstance(p, ig.IntIdentity):
        return x if p.weight == 1 else b.op("Mul", x, b.constant(p.weight))
    if isinstance(p, ig.IntSpatialSum):
        return b.op("ReduceSum", x, b.constant([2, 3]), keepdims=0)
    if isinstance(p, ig.IntSpread):
        column = b.op("Reshape", x, b.constant([-1, source[0], 1, 1]))
        return b.op("Mul", column, b.constant(np.ones((1, *target))))
    if isinstance(p, ig.IntPlace):
        size = int(np.prod(source))
        flat = b.op("Mul", b.op("Flatten", x, axis=1), b.constant(p.weight))
        return b.op("Pad", flat, b.constant([0, p.offset, 0, p.size - p.offset - size]))
    if isinstance(p, ig.IntDense):
        x, kind, weight = b.op("Flatten", x, axis=1), "MatMul", p.weight.T
        attributes: dict[str, Any] = {}
    else:
        assert isinstance(p, (ig.IntConv2d, ig.IntPool))
        kind, (weight, attributes) = "Conv", _convolution(p, source[0])
    kernel = b.constant(weight, np.float32)

    def product(digits: str) -> str:
        exact = b.op(kind, b.op("Cast", digits, to=b.types.FLOAT), kernel, **attributes)
        return b.op("Cast", exact, to=b.types.INT64)

    return _in_digits(b, x, gain, largest, product)


def _convolution(p: ig.IntConv2d | ig.IntPool, channels: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Return kernel (out, in / groups, rows, columns) and attributes of an ONNX Conv."""
    attributes = {"strides": p.stride, "pads": [*p.padding, *p.padding]}
    if isinstance(p, ig.IntPool):
        return np.ones((channels, 1, *p.kernel)), attributes | {"group": channels}
    return p.weight, attributes | {"dilations": p.dilation, "group": p.groups}


def _in_digits(b: _Builder, x: str, gain: int, largest: int, product: Callable[[str], str]) -> str:
    """Return product(x), a linear function, through sums that float32 holds exactly.

    x = sum_i digit_i * base^i with digits of x's sign, and gain * (base - 1) < 2^24.
    """
    if gain * largest < EXACT:
        return product(x)
    bits = ((EXACT - 1) // gain + 1).bit_length() - 1
    if bits < 1:
        raise OutOfRange(
            f"{b.where}: weights onto one neuron add up to {gain}, float32 sums are exact below "
            f"{EXACT}; use fewer weight bits or a layer with fewer synapses"
        )
    sign, size, parts = b.op("Sign", x), b.op("Abs", x), []
    for first in range(0, largest.bit_length(), bits):
        place = b.constant(1 << first)
        digit = b.op("Mod", b.op("Div", size, place), b.constant(1 << bits))
        parts.append(b.op("Mul", product(b.op("Mul", sign, digit)), place))
    return _total(b, parts)
