"""From an integer graph to Lava processes.

| graph | Lava process |
|---|---|
| IntInput | ``source.RingBuffer`` |
| IntLif | ``LIFReset``, cleared at frame 0 of every sample |
| IntOr | ``LIFReset`` (du=4095, dv=4095, vth=0), cleared at every step |
| IntSum | ``GradedVec`` (vth=0) |
| IntAnd | as IntOr, vth=1 |
| IntProduct | ``ProdNeuron`` (vth=0, exp=shift) |
| IntReadout | ``Accumulator`` (own) |
| IntTimeSum | ``TimeSum`` (own) |
| IntWinner | ``Winner`` (own) |
| IntSpatialAttention, IntTemporalAttention | ``SpatialAttention``, ``TemporalAttention`` (own) |
| IntConv2d, IntPool | ``MatrixConv`` (own), or ``Conv`` |
| IntConvTranspose2d | ``Sparse``, unrolled |
| IntDense | ``Dense`` |
| IntIdentity, IntSpatialSum, IntSpread, IntPlace | ``Sparse`` |
| lag | ``Gate`` (own): nothing of the sample before |
| delay | ``Delay`` (own), or a chain of identity ``Sparse`` |
| recording | ``Recorder`` (own); voltages by the models of ``LIFReset`` |

A population of latency L sees frame k at Lava's time step 1 + k + L; that fixes the reset offsets,
the rows of the recordings and the steps in which values are range checked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lava.proc.dense.process import Dense
from lava.proc.graded.process import GradedVec
from lava.proc.io.source import RingBuffer
from lava.proc.lif.process import LIFReset
from lava.proc.prodneuron.process import ProdNeuron
from lava.utils.weightutils import SignMode
from scipy.sparse import identity

from neuroav import integer as ig
from neuroav.fixed import Arithmetic
from neuroav.sim.lava.checked import (
    Check,
    CheckedGradedVec,
    CheckedLifReset,
    CheckedProdNeuron,
    record_voltage,
    set_check,
    set_neuron,
)
from neuroav.sim.lava.layout import inner, inner_columns, inner_shape
from neuroav.sim.lava.processes.accumulator import Accumulator
from neuroav.sim.lava.processes.attention import SpatialAttention, TemporalAttention
from neuroav.sim.lava.processes.conv import MatrixConv
from neuroav.sim.lava.processes.delay import Delay
from neuroav.sim.lava.processes.gate import Gate
from neuroav.sim.lava.processes.recorder import PORTS, Recorder
from neuroav.sim.lava.processes.time_sum import TimeSum
from neuroav.sim.lava.processes.winner import Winner
from neuroav.sim.lava.sparse import GRADED, channel_of_place, places, sparse, unrolled

CHECKED_MODELS = {
    LIFReset: CheckedLifReset,
    GradedVec: CheckedGradedVec,
    ProdNeuron: CheckedProdNeuron,
}
IN_PORTS = {  # of processes with several, in the order of a population's ports
    ProdNeuron: ("a_in1", "a_in2"),
    SpatialAttention: ("q_in", "k_in", "v_in"),
    TemporalAttention: ("q_in", "k_in", "v_in"),
}
FULL_DECAY = 4095  # of ``u``: Lava adds 1, so nothing is left


@dataclass
class Network:
    """The processes of one run.

    bounds: largest magnitude of each population's message. conv: 'matmul' or 'stock'. copies: of
    the network side by side in the same processes, each for every so-manieth sample; what the last
    of them lack is filled up with the last sample again. With several, every population has the
    copies as its first axis inside Lava.
    ports: output port of every population; neurons: its process. delayed: shared delay lines.
    """

    graph: ig.IntGraph
    arith: Arithmetic
    bounds: dict[str, int]
    samples: int
    conv: str
    copies: int = 1
    ports: dict[str, Any] = field(default_factory=dict)
    neurons: dict[str, Any] = field(default_factory=dict)
    delayed: dict[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Time steps to run: until the deepest population has seen the last frame."""
        return self._frames + max(self.graph.latency.values())

    @property
    def _frames(self) -> int:
        """Frames that each copy sees."""
        return -(-self.samples // self.copies) * self.graph.steps

    @property
    def prefix(self) -> tuple[int, ...]:
        return (self.copies,) if self.copies > 1 else ()

    def shape(self, shape: ig.Shape) -> tuple[int, ...]:
        """Return the shape inside Lava of a population of canonical ``shape``."""
        return (*self.prefix, *inner_shape(shape))

    def window(self, latency: int) -> tuple[int, int]:
        """Return the first and last time step at which this latency handles frames of samples."""
        return 1 + latency, latency + self._frames

    @property
    def models(self) -> dict:
        """Return the models that stand in for Lava's own choice, by process class."""
        if self.conv == "matmul":
            return CHECKED_MODELS
        from neuroav.sim.lava.stock import CONV_MODELS

        return CHECKED_MODELS | CONV_MODELS

    def check(self, where: str, latency: int, message: int | None = None) -> Check:
        return Check(where, *self.window(latency), self.arith, message)


def build(network: Network, inputs: dict[str, np.ndarray]) -> None:
    """Create and connect all processes of ``network``. inputs: int32 (samples, steps, *shape)."""
    graph = network.graph
    for name in graph.order:
        pop = graph.populations[name]
        if isinstance(pop, ig.IntInput):
            process = _source(network, pop, inputs[name])
            network.ports[name] = process.s_out
        else:
            process = _neurons(network, name, pop)
            network.ports[name] = process.s_out
        process.name = name
        network.neurons[name] = process
    for name in graph.order:  # only now: in a loop a source may come after what reads it
        process = network.neurons[name]
        for p in graph.populations[name].projections:
            port = IN_PORTS.get(type(process), ("a_in",))[p.port]
            _project(network, name, p).connect(getattr(process, port))


def record(network: Network, files: dict[str, str], states: dict[str, str], counter: str) -> Any:
    """Add recorders of outputs and have LIF voltages recorded, by population; return a recorder.

    Consecutive recorders share a population, so that all processes hang together: Lava compiles
    what it reaches from one process.
    """
    names = list(files)
    recorders: list[Recorder] = []
    for first in range(0, max(1, len(names) - 1), len(PORTS) - 1):
        part = names[first : first + len(PORTS)]
        recorder = Recorder(
            files=tuple(files[n] for n in part),
            shapes=tuple(network.ports[n].shape for n in part),
            counter="" if recorders else counter,
            name=f"recorder {len(recorders)}",
        )
        for n, port in zip(part, PORTS, strict=False):
            network.ports[n].connect(getattr(recorder, port))
        recorders.append(recorder)
    for name, file in states.items():
        record_voltage(network.neurons[name], file)
    return recorders[0]


# --- populations -----------------------------------------------------------------------------
def _source(network: Network, pop: ig.IntInput, value: np.ndarray) -> RingBuffer:
    missing = -len(value) % network.copies
    full = np.concatenate([value, np.repeat(value[-1:], missing, axis=0)])
    # samples are dealt out to the copies one by one
    dealt = full.reshape(-1, network.copies, network.graph.steps, *pop.shape).swapaxes(1, 2)
    frames = inner(dealt.reshape(-1, *network.prefix, *pop.shape), len(pop.shape))
    return RingBuffer(data=np.ascontiguousarray(np.moveaxis(frames, 0, -1)))


def _neurons(network: Network, name: str, pop: ig.Population) -> Any:
    latency, steps = network.graph.latency[name], network.graph.steps
    shape = network.shape(pop.shape)
    payload = (1 << (network.arith.payload_bits - 1)) - 1
    # a population that holds sees frame 0 of its answer a sample after frame 0 of its input
    first = (1 + latency) % steps
    common: dict[str, Any] = {"shape": shape, "name": name}
    window, bound = network.window(latency), network.bounds[name]
    if isinstance(pop, ig.IntSpatialAttention):
        return SpatialAttention(heads=pop.heads, cap=pop.cap, copies=network.copies, **common)
    if isinstance(pop, ig.IntTemporalAttention):
        common |= {"heads": pop.heads, "cap": pop.cap, "scrambled": pop.scrambled}
        return TemporalAttention(steps=steps, offset=first, **common)
    if isinstance(pop, ig.IntTimeSum):
        common |= {"weights": pop.step_weights(steps), "shift": pop.shift, "samples": window}
        return TimeSum(steps=steps, offset=first, limit=payload, message=bound, **common)
    if isinstance(pop, ig.IntWinner):
        return Winner(limit=payload, copies=network.copies, samples=window, **common)
    if isinstance(pop, ig.IntReadout):
        common |= {"bias": _per_neuron(pop.bias, pop, shape), "limit": bound, "samples": window}
        if pop.leaky:
            common["leak"] = (pop.decay_u, pop.decay_v, pop.input_shift, network.arith.decay_bits)
        return Accumulator(reset_interval=steps, reset_offset=first, **common)
    process = _stock(pop, shape, steps, first)
    set_check(process, network.check(name, latency, network.bounds[name]))
    return process


def _stock(pop: ig.Population, shape: tuple[int, ...], steps: int, first: int) -> Any:
    """Return Lava's own process; ``first``: remainder by ``steps`` of the steps with a frame 0."""
    if isinstance(pop, ig.IntSum):
        return GradedVec(shape=shape, vth=0)
    if isinstance(pop, ig.IntProduct):
        return ProdNeuron(shape=shape, vth=0, exp=pop.shift)
    if isinstance(pop, (ig.IntOr, ig.IntAnd)):
        level = int(isinstance(pop, ig.IntAnd))
        return LIFReset(shape=shape, du=FULL_DECAY, dv=FULL_DECAY, vth=level, reset_interval=1)
    assert isinstance(pop, ig.IntLif)
    decays = (pop.decay_u, pop.decay_v)
    each = any(np.ndim(d) for d in decays)
    process = LIFReset(
        shape=shape,
        du=0 if each else int(pop.decay_u),
        dv=0 if each else int(pop.decay_v),
        bias_mant=_per_neuron(pop.bias_mantissa, pop, shape),
        bias_exp=int(pop.bias_exponent),
        vth=_per_neuron(pop.threshold, pop, shape),
        reset_interval=steps,
        reset_offset=first,
    )
    by_neuron = [_per_neuron(np.asarray(d), pop, shape).astype(np.int64) for d in decays]
    set_neuron(process, (by_neuron[0], by_neuron[1]) if each else None, pop.reset == "subtract")
    return process


def _per_neuron(value: np.ndarray, pop: ig.Population, shape: tuple[int, ...]) -> np.ndarray:
    """Return ``value`` of the population broadcast to its ``shape`` inside Lava (int32)."""
    full = np.broadcast_to(value, pop.shape).astype(np.int32)
    return np.ascontiguousarray(np.broadcast_to(inner(full, len(pop.shape)), shape))


# --- projections -----------------------------------------------------------------------------
def _project(network: Network, target: str, p: ig.Projection) -> Any:
    """Return the port that carries the synaptic sums of one projection, shaped as its target."""
    name = f"{target} from {p.source}"
    source = network.graph.populations[p.source].shape
    port = _gate(network, target, p, _delay(network, p.source, p.delay))
    if isinstance(p, (ig.IntConv2d, ig.IntPool)):
        process = _convolution(network, name, target, p, source)
        port.connect(process.s_in)
        return process.a_out
    if isinstance(p, ig.IntDense):
        process = Dense(
            weights=np.kron(np.eye(network.copies, dtype=int), inner_columns(p.weight, source)),
            name=name,
            num_message_bits=GRADED,
            num_weight_bits=int(p.weight_bits),
            sign_mode=SignMode[p.sign_mode.upper()],
        )
    elif isinstance(p, ig.IntSpatialSum):
        process = sparse(name, channel_of_place(source, source[1:]).T, network.copies)
    elif isinstance(p, ig.IntSpread):
        process = sparse(name, channel_of_place(source, p.places), network.copies)
    elif isinstance(p, ig.IntPlace):
        process = sparse(name, places(p, source), network.copies)
    elif isinstance(p, ig.IntConvTranspose2d):
        mode, shape = p.sign_mode, network.graph.populations[target].shape
        process = sparse(name, unrolled(p, source, shape), network.copies, p.weight_bits, mode)
    else:
        assert isinstance(p, ig.IntIdentity)
        weights = unrolled(p, source, network.graph.populations[target].shape)
        process = sparse(name, weights, network.copies)
    port.flatten().connect(process.s_in)
    return process.a_out.reshape(network.shape(network.graph.populations[target].shape))


def _gate(network: Network, target: str, p: ig.Projection, port: Any) -> Any:
    """Return the port that carries a projection's messages; none of the sample before, if late."""
    if not p.lag:
        return port
    graph = network.graph
    # at Lava's step t it lets through what reaches frame 0 of the target at step t + 1
    first = (graph.latency[target] - graph.held(target)) % graph.steps
    gate = Gate(
        shape=port.shape,
        interval=graph.steps,
        offset=first,
        closed=p.lag,
        name=f"{target} from {p.source}, {p.lag} late",
    )
    port.connect(gate.s_in)
    return gate.a_out


def _convolution(
    network: Network, name: str, target: str, p: ig.IntConv2d | ig.IntPool, source: ig.Shape
):
    if isinstance(p, ig.IntPool):
        weight = np.ones((source[0], 1, *p.kernel), np.int64)
        dilation, groups = (1, 1), source[0]
    else:
        weight, dilation, groups = p.weight, p.dilation, p.groups
    # the sums of frame k are formed one step before they are sent
    latency = network.graph.latency[target] - network.graph.held(target) - 1
    geometry: dict[str, Any] = {
        "input_shape": network.shape(source),
        "stride": tuple(p.stride),
        "padding": tuple(p.padding),
        "dilation": tuple(dilation),
        "groups": int(groups),
    }
    if network.conv == "matmul":
        return MatrixConv(
            weight=weight,
            message_max=network.bounds[p.source],
            name=name,
            samples=network.window(latency),
            **geometry,
        )
    # only now: Lava's Conv imports scipy.signal, which takes longer than all the rest
    from neuroav.sim.lava.stock import stock_conv

    process = stock_conv(weight, name=name, num_message_bits=GRADED, **geometry)
    set_check(process, network.check(name, latency))
    return process


def _delay(network: Network, source: str, steps: int) -> Any:
    """Return the output port of ``source``, ``steps`` later. Projections share delay lines."""
    if steps == 0:
        return network.ports[source]
    if (source, steps) not in network.delayed:
        shape, name = network.ports[source].shape, f"{source} delayed by {steps}"
        if network.conv == "matmul":
            line = Delay(shape=shape, steps=steps, name=name)
            network.ports[source].connect(line.s_in)
            network.delayed[source, steps] = line.a_out
        else:
            before = _delay(network, source, steps - 1)
            link = sparse(name, identity(int(np.prod(shape)), dtype=np.int32, format="csr"))
            before.flatten().connect(link.s_in)
            network.delayed[source, steps] = link.a_out.reshape(shape)
    return network.delayed[source, steps]
