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
| IntDense | ``Dense`` |
| IntIdentity, IntSpatialSum, IntSpread, IntPlace | ``Sparse`` |
| delay | ``Delay`` (own), or a chain of identity ``Sparse`` |
| recording | ``Recorder``, ``StateRecorder`` (own) |

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
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix, identity

from neuroav import integer as ig
from neuroav.fixed import Arithmetic
from neuroav.sim.lava.checked import (
    Check,
    CheckedGradedVec,
    CheckedLifReset,
    CheckedProdNeuron,
    set_check,
)
from neuroav.sim.lava.layout import inner, inner_columns, inner_shape
from neuroav.sim.lava.processes.accumulator import Accumulator
from neuroav.sim.lava.processes.attention import SpatialAttention, TemporalAttention
from neuroav.sim.lava.processes.conv import MatrixConv
from neuroav.sim.lava.processes.delay import Delay
from neuroav.sim.lava.processes.recorder import PORTS, Recorder, StateRecorder
from neuroav.sim.lava.processes.time_sum import TimeSum
from neuroav.sim.lava.processes.winner import Winner

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
GRADED = 24  # any number above 0 makes a connection pass whole integers; 0 would cast to bool
FULL_DECAY = 4095  # of ``u``: Lava adds 1, so nothing is left


@dataclass
class Network:
    """The processes of one run.

    bounds: largest magnitude of each population's message. conv: 'matmul' or 'stock'.
    ports: output port of every population; neurons: its process. delayed: shared delay lines.
    """

    graph: ig.IntGraph
    arith: Arithmetic
    bounds: dict[str, int]
    samples: int
    conv: str
    ports: dict[str, Any] = field(default_factory=dict)
    neurons: dict[str, Any] = field(default_factory=dict)
    delayed: dict[tuple[str, int], Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Time steps to run: until the deepest population has seen the last frame."""
        return self.samples * self.graph.steps + max(self.graph.latency.values())

    def window(self, latency: int) -> tuple[int, int]:
        """Return the first and last time step at which this latency handles frames of samples."""
        return 1 + latency, latency + self.samples * self.graph.steps

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
            process = _source(pop, inputs[name])
            network.ports[name] = process.s_out
        else:
            process = _neurons(network, name, pop)
            network.ports[name] = process.s_out
            for p in pop.projections:
                port = IN_PORTS.get(type(process), ("a_in",))[p.port]
                _project(network, name, p).connect(getattr(process, port))
        process.name = name
        network.neurons[name] = process


def record(network: Network, files: dict[str, str], states: dict[str, str], counter: str) -> Any:
    """Add recorders of outputs and LIF voltages, by population; return one of them.

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
        StateRecorder(variable=network.neurons[name].v, file=file, name=f"voltage of {name}")
    return recorders[0]


# --- populations -----------------------------------------------------------------------------
def _source(pop: ig.IntInput, value: np.ndarray) -> RingBuffer:
    frames = inner(value.reshape(-1, *pop.shape), len(pop.shape))
    return RingBuffer(data=np.ascontiguousarray(np.moveaxis(frames, 0, -1)))


def _neurons(network: Network, name: str, pop: ig.Population) -> Any:
    latency, steps = network.graph.latency[name], network.graph.steps
    shape = inner_shape(pop.shape)
    payload = (1 << (network.arith.payload_bits - 1)) - 1
    if isinstance(pop, ig.IntSpatialAttention):
        return SpatialAttention(shape=shape, heads=pop.heads, cap=pop.cap, name=name)
    # a population that holds sees frame 0 of its answer a sample after frame 0 of its input
    first = (1 + latency) % steps
    if isinstance(pop, ig.IntTemporalAttention):
        return TemporalAttention(
            shape=shape,
            heads=pop.heads,
            cap=pop.cap,
            scrambled=pop.scrambled,
            steps=steps,
            offset=first,
            name=name,
        )
    if isinstance(pop, ig.IntTimeSum):
        return TimeSum(
            shape=shape,
            steps=steps,
            offset=first,
            limit=payload,
            message=network.bounds[name],
            weights=pop.step_weights(steps),
            shift=pop.shift,
            samples=network.window(latency),
            name=name,
        )
    if isinstance(pop, ig.IntWinner):
        return Winner(shape=shape, limit=payload, samples=network.window(latency), name=name)
    if isinstance(pop, ig.IntReadout):
        return Accumulator(
            shape=shape,
            bias=_per_neuron(pop.bias, pop),
            reset_interval=steps,
            reset_offset=first,
            limit=network.bounds[name],
            samples=network.window(latency),
            name=name,
        )
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
    return LIFReset(
        shape=shape,
        du=int(pop.decay_u),
        dv=int(pop.decay_v),
        bias_mant=_per_neuron(pop.bias_mantissa, pop),
        bias_exp=int(pop.bias_exponent),
        vth=_per_neuron(pop.threshold, pop),
        reset_interval=steps,
        reset_offset=first,
    )


def _per_neuron(value: np.ndarray, pop: ig.Population) -> np.ndarray:
    """Return ``value`` broadcast to the population, in Lava's axis order (int32)."""
    full = np.broadcast_to(value, pop.shape).astype(np.int32)
    return np.ascontiguousarray(inner(full, len(pop.shape)))


# --- projections -----------------------------------------------------------------------------
def _project(network: Network, target: str, p: ig.Projection) -> Any:
    """Return the port that carries the synaptic sums of one projection, shaped as its target."""
    name = f"{target} from {p.source}"
    source = network.graph.populations[p.source].shape
    port = _delay(network, p.source, p.delay)
    if isinstance(p, (ig.IntConv2d, ig.IntPool)):
        process = _convolution(network, name, p, source)
        port.connect(process.s_in)
        return process.a_out
    if isinstance(p, ig.IntDense):
        process = Dense(
            weights=inner_columns(p.weight, source),
            name=name,
            num_message_bits=GRADED,
            num_weight_bits=int(p.weight_bits),
            sign_mode=SignMode[p.sign_mode.upper()],
        )
    elif isinstance(p, ig.IntSpatialSum):
        process = _unit_sparse(name, np.tile(np.arange(source[0]), source[1] * source[2]))
    elif isinstance(p, ig.IntSpread):
        process = _sparse(name, np.tile(np.arange(source[0]), p.places[0] * p.places[1]), source[0])
    elif isinstance(p, ig.IntPlace):
        process = _place_sparse(name, p, source)
    else:
        assert isinstance(p, ig.IntIdentity)
        process = _identity_sparse(name, int(np.prod(source)), int(p.weight))
    port.flatten().connect(process.s_in)
    return process.a_out.reshape(inner_shape(network.graph.populations[target].shape))


def _convolution(network: Network, name: str, p: ig.IntConv2d | ig.IntPool, source: ig.Shape):
    if isinstance(p, ig.IntPool):
        weight = np.ones((source[0], 1, *p.kernel), np.int64)
        dilation, groups = (1, 1), source[0]
    else:
        weight, dilation, groups = p.weight, p.dilation, p.groups
    # the sums of frame k are formed one step before they are sent
    latency = network.graph.latency[p.source] + p.delay
    geometry: dict[str, Any] = {
        "input_shape": inner_shape(source),
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
            link = _identity_sparse(name, int(np.prod(shape)), 1)
            before.flatten().connect(link.s_in)
            network.delayed[source, steps] = link.a_out.reshape(shape)
    return network.delayed[source, steps]


def _identity_sparse(name: str, neurons: int, weight: int) -> Sparse:
    """One synapse per neuron. Lava stores odd weights only if all have the same sign."""
    mode = SignMode.EXCITATORY if weight > 0 else SignMode.INHIBITORY
    if weight == -256:  # an inhibitory synapse ends at -255
        mode = SignMode.MIXED
    return Sparse(
        weights=(identity(neurons, dtype=np.int32, format="csr") * weight),
        name=name,
        num_message_bits=GRADED,
        num_weight_bits=8,
        sign_mode=mode,
    )


def _place_sparse(name: str, p: ig.IntPlace, source: ig.Shape) -> Sparse:
    """One synapse per source neuron, to the neuron ``offset`` further on."""
    count = int(np.prod(source))
    order = np.arange(count).reshape(source)  # our numbers of the neurons, in Lava's order
    rows = p.offset + np.ascontiguousarray(inner(order, len(source))).reshape(-1)
    weights = csr_matrix(
        (np.full(count, p.weight, np.int32), (rows, np.arange(count))), shape=(p.size, count)
    )
    return Sparse(
        weights=weights,
        name=name,
        num_message_bits=GRADED,
        num_weight_bits=8,
        sign_mode=SignMode.EXCITATORY if p.weight > 0 else SignMode.INHIBITORY,
    )


def _sparse(name: str, sources: np.ndarray, count: int) -> Sparse:
    """Unit synapses: neuron i of the target is driven by neuron ``sources[i]`` of ``count``."""
    rows = np.arange(len(sources))
    weights = csr_matrix(
        (np.ones(len(sources), np.int32), (rows, sources)), shape=(len(sources), count)
    )
    return Sparse(
        weights=weights,
        name=name,
        num_message_bits=GRADED,
        num_weight_bits=8,
        sign_mode=SignMode.EXCITATORY,
    )


def _unit_sparse(name: str, targets: np.ndarray) -> Sparse:
    """Unit synapses: neuron i of the source drives neuron ``targets[i]``."""
    weights = csr_matrix((np.ones(len(targets), np.int32), (targets, np.arange(len(targets)))))
    return Sparse(
        weights=weights,
        name=name,
        num_message_bits=GRADED,
        num_weight_bits=8,
        sign_mode=SignMode.EXCITATORY,
    )
