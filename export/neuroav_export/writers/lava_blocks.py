"""The body of a Lava script's ``build``: one block of statements per population, and its arrays.

What stands for what is ``neuroav.sim.lava.build``'s table; a test holds the outputs equal.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav.fixed import Arithmetic
from neuroav.sim.lava.layout import inner, inner_columns, inner_shape
from neuroav.sim.sanafe.unroll import unroll

STOCK = {  # Lava's own processes, by the module to import them from
    "RingBuffer": "lava.proc.io.source",
    "LIFReset": "lava.proc.lif.process",
    "GradedVec": "lava.proc.graded.process",
    "ProdNeuron": "lava.proc.prodneuron.process",
    "Dense": "lava.proc.dense.process",
    "Sparse": "lava.proc.sparse.process",
}
NEURON = "NeuronLif"  # ours, where LIFReset will not do
FULL_DECAY = 4095  # of ``u``: Lava adds 1, so nothing is left
LINE = 100
IN_PORTS = {
    ig.IntProduct: ("a_in1", "a_in2"),
    ig.IntSpatialAttention: ("q_in", "k_in", "v_in"),
    ig.IntTemporalAttention: ("q_in", "k_in", "v_in"),
}
_TITLES = {
    ig.IntInput: "event counts of the input",
    ig.IntHostCurrent: "currents from the host, the same in every frame",
    ig.IntLif: "leaky integrate-and-fire",
    ig.IntOr: "spike where any message arrives: no memory, a > 0",
    ig.IntAnd: "spike where two messages arrive: no memory, a > 1",
    ig.IntSum: "send the sum a itself",
    ig.IntReadout: "accumulate over the sample, no threshold",
    ig.IntProduct: "send the product of two sums",
    ig.IntTimeSum: "send the sum over the sample, during the next sample",
    ig.IntWinner: "the neuron with the largest sum spikes",
    ig.IntSpatialAttention: "attention over the places of a frame",
    ig.IntTemporalAttention: "attention over the frames of a sample, sent during the next",
}


class Code(str):
    """Source text, where other values are written as literals."""


@dataclass
class Blocks:
    """Statements under construction.

    graph: the network; bounds: largest magnitude of each message; arith: the registers. taken:
    names that no variable may have. lines: of the body of ``build``. arrays: what weights.npz
    holds. stock, own: names of the process classes in use. variables: of the populations, by name.
    delayed: delay lines, by source and steps. waiting: projections whose source comes later, with
    their target.
    """

    graph: ig.IntGraph
    bounds: dict[str, int]
    arith: Arithmetic
    taken: set[str]
    lines: list[str] = field(default_factory=list)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    stock: set[str] = field(default_factory=lambda: {"RingBuffer", "Sparse"})
    own: set[str] = field(default_factory=lambda: {"Recorder"})
    variables: dict[str, str] = field(default_factory=dict)
    delayed: dict[tuple[str, int], str] = field(default_factory=dict)
    waiting: list[tuple[str, ig.Projection]] = field(default_factory=list)

    def write(self) -> None:
        """Write the block of every population."""
        for name in self.graph.order:
            pop = self.graph.populations[name]
            self.variables[name] = self.variable(name)
            self._heading(name, pop)
            if isinstance(pop, ig.IntInput):
                made = f"source(inputs[{literal(name)}])"
                self.lines.append(f"{self.variables[name]} = {made}")
            else:
                self._neurons(name, pop)
            self.lines.append(f"populations[{literal(name)}] = {self.variables[name]}")
            for p in pop.projections:
                if p.source in self.variables:
                    _Projection(self, name, p).write()
                else:
                    self.waiting.append((name, p))
            for target, p in [w for w in self.waiting if w[1].source == name]:
                self.waiting.remove((target, p))
                self.lines += ["", f"# back to {literal(target)}"]
                _Projection(self, target, p).write()

    def _heading(self, name: str, pop: ig.Population) -> None:
        start = f"# --- {literal(name)} "
        self.lines += ["", start + "-" * max(3, 75 - len(start))]
        where = (
            f"Neurons inside Lava: {inner_shape(pop.shape)}, latency {self.graph.latency[name]}."
        )
        self.lines += _comment(f"{_TITLES[type(pop)]}. {where}")

    def variable(self, name: str) -> str:
        """Return an identifier like ``name`` that nothing else bears."""
        base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_")[:60] or "population"
        if not base.isidentifier() or keyword.iskeyword(base):
            base = f"p_{base}"
        found, number = base, 2
        while found in self.taken:
            found, number = f"{base}_{number}", number + 1
        self.taken.add(found)
        return found

    def array(self, key: str, value: np.ndarray) -> Code:
        """Keep an array for weights.npz; return the source text that reads it."""
        self.arrays[key] = np.ascontiguousarray(value)
        return Code(f'w["{key}"]')

    def per_neuron(self, name: str, what: str, value: Any) -> Any:
        """Return one number, or an int32 array of the population's shape inside Lava."""
        pop = self.graph.populations[name]
        full = np.broadcast_to(value, pop.shape)
        if (full == full.flat[0]).all():
            return int(full.flat[0])
        key = f"{self.variables[name]}.{what}"
        return self.array(key, inner(full.astype(np.int32), len(pop.shape)))

    def call(self, variable: str, process: str, **arguments: Any) -> None:
        """Write ``variable = process(...)``."""
        (self.stock if process in STOCK else self.own).add(process)
        self.assign(variable, process, arguments)

    def assign(self, variable: str, function: str, arguments: dict[str, Any], *first: str) -> None:
        texts = [
            *first,
            *(f"{k}={literal(v)}" for k, v in arguments.items()),
        ]
        line = f"{variable} = {function}({', '.join(texts)})"
        if len(line) + 4 > LINE:
            self.lines += [f"{variable} = {function}(", *(f"    {t}," for t in texts), ")"]
        else:
            self.lines.append(line)

    def _neurons(self, name: str, pop: ig.Population) -> None:
        variable, latency, steps = self.variables[name], self.graph.latency[name], self.graph.steps
        payload = (1 << (self.arith.payload_bits - 1)) - 1
        common: dict[str, Any] = {"shape": inner_shape(pop.shape)}
        own = common | {"name": name}  # Lava's own get their names at the end: not all take one
        # a population that holds sees frame 0 of its answer a sample after frame 0 of its input
        first = (1 + latency) % steps
        holding = own | {"steps": Code("STEPS"), "offset": first}
        if isinstance(pop, ig.IntLif):
            self._lif(name, pop, common, first)
        elif isinstance(pop, (ig.IntOr, ig.IntAnd)):
            level = {"vth": int(isinstance(pop, ig.IntAnd)), "reset_interval": 1}
            self.call(variable, "LIFReset", **common, du=FULL_DECAY, dv=FULL_DECAY, **level)
        elif isinstance(pop, ig.IntSum):
            self.call(variable, "GradedVec", **common, vth=0)
        elif isinstance(pop, ig.IntProduct):
            self.call(variable, "ProdNeuron", **common, vth=0, exp=pop.shift)
        elif isinstance(pop, ig.IntReadout):
            self._readout(name, pop, own, first)
        elif isinstance(pop, ig.IntTimeSum):
            holding["weights"] = self.array(f"{variable}.weights", pop.step_weights(steps))
            holding |= {"shift": pop.shift, "limit": payload, "message": self.bounds[name]}
            self.call(variable, "TimeSum", **holding, samples=window(latency))
        elif isinstance(pop, ig.IntWinner):
            self.call(variable, "Winner", **own, limit=payload, samples=window(latency))
        elif isinstance(pop, ig.IntSpatialAttention):
            self.call(variable, "SpatialAttention", **own, heads=pop.heads, cap=pop.cap)
        else:
            assert isinstance(pop, ig.IntTemporalAttention)
            form = {"heads": pop.heads, "cap": pop.cap, "scrambled": pop.scrambled}
            self.call(variable, "TemporalAttention", **holding, **form)

    def _lif(self, name: str, pop: ig.IntLif, common: dict[str, Any], first: int) -> None:
        du, dv = (
            self.per_neuron(name, what, value)
            for what, value in (("du", pop.decay_u), ("dv", pop.decay_v))
        )
        stock = isinstance(du, int) and isinstance(dv, int) and pop.reset == "zero"
        if not stock:
            common = common | {"subtract": pop.reset == "subtract"}
        self.call(
            self.variables[name],
            "LIFReset" if stock else NEURON,
            **common,
            du=du,
            dv=dv,
            bias_mant=self.per_neuron(name, "bias_mant", pop.bias_mantissa),
            bias_exp=int(pop.bias_exponent),
            vth=self.per_neuron(name, "vth", pop.threshold),
            reset_interval=Code("STEPS"),
            reset_offset=first,
        )

    def _readout(self, name: str, pop: ig.IntReadout, own: dict[str, Any], first: int) -> None:
        if pop.leaky:
            decays = (pop.decay_u, pop.decay_v, pop.input_shift)
            self.lines += _comment("leak: decay of u, decay of v, input shift, decay bits")
            own = own | {"leak": (*decays, self.arith.decay_bits)}
        self.call(
            self.variables[name],
            "Accumulator",
            **own,
            bias=self.per_neuron(name, "bias", pop.bias),
            reset_interval=Code("STEPS"),
            reset_offset=first,
            limit=self.bounds[name],
            samples=window(self.graph.latency[name]),
        )

    def port(self, source: str, steps: int) -> str:
        """Return the output port of a population, ``steps`` later; projections share the lines."""
        variable = self.variables[source]
        if steps == 0:
            return f"{variable}.s_out"
        if (source, steps) not in self.delayed:
            line = self.delayed[source, steps] = self.variable(f"{variable}_delayed_{steps}")
            shape = inner_shape(self.graph.populations[source].shape)
            name = f"{source} delayed by {steps}"
            self.call(line, "Delay", name=name, shape=shape, steps=steps)
            self.lines.append(f"{variable}.s_out.connect({line}.s_in)")
        return f"{self.delayed[source, steps]}.a_out"


@dataclass
class _Projection:
    """The statements of one projection onto ``target``."""

    blocks: Blocks
    target: str
    p: ig.Projection

    def write(self) -> None:
        blocks, p, graph = self.blocks, self.p, self.blocks.graph
        source, target = (graph.populations[n].shape for n in (p.source, self.target))
        blocks.lines += _comment(f"from {literal(p.source)}: {_describe(p)}")
        variable = blocks.variables[self.target]
        synapses = blocks.variable(f"{variable}_from_{blocks.variables[p.source]}")
        port = self._gated(synapses, blocks.port(p.source, p.delay), source)
        name = f"{self.target} from {p.source}"
        into = IN_PORTS.get(type(graph.populations[self.target]), ("a_in",))[p.port]
        if isinstance(p, (ig.IntConv2d, ig.IntPool)):
            self._convolution(synapses, name, p, source)
            blocks.lines.append(f"{port}.connect({synapses}.s_in)")
            blocks.lines.append(f"{synapses}.a_out.connect({variable}.{into})")
            return
        if isinstance(p, ig.IntDense):
            weights = blocks.array(
                f"{synapses}.weights", inner_columns(p.weight, source).astype(np.int32)
            )
            form = {"num_message_bits": Code("GRADED"), **_form(p.weight_bits, p.sign_mode)}
            blocks.call(synapses, "Dense", name=name, weights=weights, **form)
        else:
            self._sparse(synapses, name, source, target)
        flat = "" if len(source) == 1 else ".flatten()"
        shaped = "" if len(target) == 1 else f".reshape({inner_shape(target)})"
        blocks.lines.append(f"{port}{flat}.connect({synapses}.s_in)")
        blocks.lines.append(f"{synapses}.a_out{shaped}.connect({variable}.{into})")

    def _gated(self, synapses: str, port: str, source: ig.Shape) -> str:
        """Return the port behind a gate that keeps out the sample before, where the messages come
        frames late."""
        p, graph = self.p, self.blocks.graph
        if not p.lag:
            return port
        gate = self.blocks.variable(f"{synapses}_gate")
        self.blocks.call(
            gate,
            "Gate",
            name=f"{self.target} from {p.source}, {p.lag} late",
            shape=inner_shape(source),
            interval=Code("STEPS"),
            # one step before frame 0 of the target
            offset=(graph.latency[self.target] - graph.held(self.target)) % graph.steps,
            closed=p.lag,
        )
        self.blocks.lines.append(f"{port}.connect({gate}.s_in)")
        return f"{gate}.a_out"

    def _convolution(
        self, synapses: str, name: str, p: ig.IntConv2d | ig.IntPool, source: ig.Shape
    ) -> None:
        blocks, graph = self.blocks, self.blocks.graph
        if isinstance(p, ig.IntConv2d):
            kernel = blocks.array(f"{synapses}.weight", p.weight.astype(np.int64))
            geometry = {"dilation": tuple(p.dilation), "groups": int(p.groups)}
        else:
            kernel = Code(f"np.ones(({source[0]}, 1, {p.kernel[0]}, {p.kernel[1]}), int)")
            geometry = {"dilation": (1, 1), "groups": source[0]}
        blocks.call(
            synapses,
            "MatrixConv",
            name=name,
            weight=kernel,
            input_shape=inner_shape(source),
            stride=tuple(p.stride),
            padding=tuple(p.padding),
            **geometry,
            message_max=blocks.bounds[p.source],
            # sums are formed one step before they arrive
            samples=window(graph.latency[self.target] - graph.held(self.target) - 1),
        )

    def _sparse(self, synapses: str, name: str, source: ig.Shape, target: ig.Shape) -> None:
        blocks = self.blocks
        listed, form = _synapses(self.p, source, target)
        number_in, number_out = _lava_numbers(source), _lava_numbers(target)
        table = np.stack([number_out[listed.target], number_in[listed.source], listed.weight], 1)
        key = blocks.array(f"{synapses}.synapses", table.astype(np.int32))
        shape = (int(np.prod(target)), int(np.prod(source)))
        first = (literal(name), str(key), repr(shape))
        blocks.assign(synapses, "sparse", form, *first)


# --- projections in words and numbers --------------------------------------------------------
def _synapses(p: ig.Projection, source: ig.Shape, target: ig.Shape) -> tuple[Any, dict[str, Code]]:
    """Return explicit synapses, neurons in canonical order, and the form that Lava stores them in.

    Lava stores odd weights only if all have the same sign."""
    listed = unroll(p, source, target)
    if isinstance(p, ig.IntConvTranspose2d):
        return listed, _form(p.weight_bits, p.sign_mode)
    weight = getattr(p, "weight", 1)
    mode = "excitatory" if weight > 0 else "inhibitory"
    if weight == -256:  # an inhibitory synapse ends at -255
        mode = "mixed"
    return listed, _form(8, mode)


def _form(bits: int, mode: str) -> dict[str, Code]:
    return {
        "num_weight_bits": Code(str(int(bits))),
        "sign_mode": Code(f"SignMode.{mode.upper()}"),
    }


def _lava_numbers(shape: ig.Shape) -> np.ndarray:
    """Return the number inside Lava of every neuron in canonical order."""
    order = np.arange(int(np.prod(shape))).reshape(shape)
    return np.argsort(inner(order, len(shape)).reshape(-1))


def _describe(p: ig.Projection) -> str:
    """Return what a projection is, in words."""
    late = f", {p.delay} steps later" if p.delay else ""
    late += f", of {p.lag} frames before" if p.lag else ""
    if isinstance(p, ig.IntConv2d):
        return f"convolution, kernels (out, in / groups, rows, columns) {p.weight.shape}{late}"
    if isinstance(p, ig.IntPool):
        return f"unit synapses from a window of {p.kernel[0]} x {p.kernel[1]}{late}"
    if isinstance(p, ig.IntDense):
        return f"all to all{late}"
    if isinstance(p, ig.IntIdentity):
        return f"one to one, weight {p.weight}{late}"
    if isinstance(p, ig.IntSpatialSum):
        return f"the sum over the places of a channel{late}"
    if isinstance(p, ig.IntSpread):
        return f"to all places of the channel{late}"
    if isinstance(p, ig.IntPlace):
        return f"to neurons {p.offset}.. of {p.size}, weight {p.weight}{late}"
    return f"transposed convolution, synapses written out{late}"


def window(latency: int) -> Code:
    """Return the first and last time step at which this latency handles frames of samples."""
    return Code(f"({1 + latency}, {latency} + frames)")


def literal(value: Any) -> str:
    """Return the source text of a value; one line of printable characters, quotes double."""
    if isinstance(value, Code):
        return str(value)
    text = repr(value)
    if isinstance(value, str) and text[0] == "'" and '"' not in text:
        return f'"{text[1:-1]}"'
    return text


def _comment(text: str) -> Iterable[str]:
    """Yield comment lines of ``text``."""
    line = "#"
    for word in text.split(" "):
        if len(line) + len(word) > LINE - 6 and line != "#":
            yield line
            line = "#"
        line += f" {word}"
    yield line
