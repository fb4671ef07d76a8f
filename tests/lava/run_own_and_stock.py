"""Script: feeds the same messages to own processes and to Lava's; writes what both sent."""

import sys
from pathlib import Path

import numpy as np

from neuroav.fixed import Arithmetic
from neuroav.hardware import load_profile
from neuroav.sim.lava import shim

STEPS, SAMPLE = 24, 6
CONVOLUTIONS = {  # input (rows, columns, channels), weight, stride, padding, dilation, groups
    "plain": ((5, 7, 3), (4, 3, 3, 3), (1, 1), (0, 0), (1, 1), 1),
    "strided": ((5, 7, 2), (3, 2, 3, 2), (2, 1), (1, 0), (1, 1), 1),
    "dilated": ((7, 6, 2), (2, 2, 3, 2), (1, 2), (2, 1), (2, 3), 1),
    "grouped": ((6, 5, 4), (6, 2, 2, 3), (1, 1), (1, 2), (1, 1), 2),
    "depthwise": ((5, 5, 3), (6, 1, 3, 3), (2, 2), (1, 1), (1, 1), 3),
    "pointwise": ((4, 4, 100), (5, 100, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "one pixel": ((3, 4, 2), (2, 2, 3, 4), (3, 3), (0, 0), (1, 1), 1),
    "large": ((5, 7, 3), (4, 3, 3, 3), (1, 1), (0, 0), (1, 1), 1),  # float32 would not do
}


class Bench:
    """Sources, sinks and the recordings of both kinds of sink."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rng = folder, np.random.default_rng(5)
        self.recorded: dict[str, object] = {}
        self.sunk: dict[str, object] = {}
        self.written: dict[str, str] = {}
        self.files = 0

    def file(self, shape) -> str:
        """Return the path of a new array for a value per step."""
        self.files += 1
        path = str(self.folder / f"{self.files}.npy")
        np.save(path, np.zeros((STEPS, *shape), np.int32))
        return path

    def source(self, shape, high: int = 4, density: float = 0.4):
        from lava.proc.io.source import RingBuffer

        data = self.rng.integers(-high, high + 1, (*shape, STEPS))
        return RingBuffer(data=data * (self.rng.random(data.shape) < density))

    def keep(self, name: str, port) -> None:
        """Record a port by a stock sink and note it for the own recorder."""
        from lava.proc.io.sink import RingBuffer

        sink = RingBuffer(shape=port.shape, buffer=STEPS)
        port.connect(sink.a_in)
        self.recorded[name], self.sunk[name] = port, sink

    def run(self, models: dict, states: dict) -> dict[str, np.ndarray]:
        """Return own recordings by name and stock ones by 'stock sink: name'."""
        from lava.magma.core.run_conditions import RunSteps
        from lava.magma.core.run_configs import Loihi2SimCfg
        from lava.proc.io.sink import Read

        from neuroav.sim.lava.processes.recorder import PORTS, Recorder

        names = list(self.recorded)
        files = {name: self.file(self.recorded[name].shape) for name in names}
        read = {name: Read(buffer=STEPS) for name in states}
        roots = []
        for first in range(0, len(names), len(PORTS) - 1):
            part = names[first : first + len(PORTS)]
            recorder = Recorder(
                files=tuple(files[n] for n in part),
                shapes=tuple(self.recorded[n].shape for n in part),
            )
            for name, port in zip(part, PORTS, strict=False):
                self.recorded[name].connect(getattr(recorder, port))
            roots.append(recorder)
        for name, variable in states.items():
            read[name].connect_var(variable)
        config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
        roots[0].run(RunSteps(STEPS), config, {"pypy_channel_size": 2})
        results = {name: np.load(file) for name, file in {**files, **self.written}.items()}
        for name, sink in read.items():
            results[name] = np.moveaxis(sink.data.get(), -1, 0)
        for name, sink in self.sunk.items():
            results[f"stock sink: {name}"] = np.moveaxis(sink.data.get(), -1, 0)
        roots[0].stop()
        return results


def add_convolutions(bench: Bench) -> None:
    from neuroav.sim.lava.processes.conv import MatrixConv
    from neuroav.sim.lava.stock import stock_conv

    for name, (shape, kernel, stride, padding, dilation, groups) in CONVOLUTIONS.items():
        high = 20_000 if name == "large" else 4
        weight = bench.rng.integers(-128, 128, kernel)
        source = bench.source(shape, high, 0.02 if name == "large" else 0.4)
        geometry = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "input_shape": shape,
        }
        own = MatrixConv(weight=weight, message_max=high, name=name, **geometry)
        stock = stock_conv(weight, num_message_bits=24, **geometry)
        for kind, process in (("own", own), ("stock", stock)):
            source.s_out.connect(process.s_in)
            bench.keep(f"{kind} conv {name}", process.a_out)


def add_delays(bench: Bench) -> None:
    from lava.proc.sparse.process import DelaySparse, Sparse
    from scipy.sparse import identity

    from neuroav.sim.lava.processes.delay import Delay

    source = bench.source((6,), 1000)
    unit = identity(6, dtype=np.int32, format="csr")
    chained = source.s_out
    for steps in (1, 2, 3, 7):
        own = Delay(shape=(6,), steps=steps)
        source.s_out.connect(own.s_in)
        bench.keep(f"own delay {steps}", own.a_out)
    for steps in (1, 2, 3):
        link = Sparse(weights=unit, num_message_bits=8)
        chained.connect(link.s_in)
        chained = link.a_out
        bench.keep(f"chain delay {steps}", chained)
    # DelaySparse delivers a delay of d after d + 1 steps
    late = DelaySparse(weights=unit, delays=(unit * 6).astype(int), num_message_bits=8)
    source.s_out.connect(late.s_in)
    bench.keep("chain delay 7", late.a_out)


def add_accumulators(bench: Bench) -> dict:
    """Sigma adds without bias; a LIFReset that never fires adds input and bias times 64."""
    from lava.proc.lif.process import LIFReset
    from lava.proc.sdn.process import Sigma

    from neuroav.sim.lava.processes.accumulator import Accumulator

    source, bias = bench.source((2, 3), 30), np.arange(6).reshape(2, 3) - 2
    plain = Accumulator(
        shape=(2, 3),
        bias=np.zeros(1, np.int64),
        reset_interval=1000,
        reset_offset=0,
        limit=1 << 22,
        name="plain",
    )
    sigma = Sigma(shape=(2, 3))
    own = Accumulator(
        shape=(2, 3), bias=bias, reset_interval=SAMPLE, reset_offset=3, limit=1 << 22, name="own"
    )
    lif = LIFReset(
        shape=(2, 3),
        du=4095,
        dv=0,
        vth=131071,
        bias_mant=bias,
        bias_exp=6,
        reset_interval=SAMPLE,
        reset_offset=3,
    )
    for process in (plain, sigma, own, lif):
        source.s_out.connect(process.a_in)
    bench.keep("own sum", plain.s_out)
    bench.keep("sigma sum", sigma.s_out)
    bench.keep("own readout", own.s_out)
    return {"lif voltage": lif.v}


TOKENS, HEADS, PART = SAMPLE, 2, 2  # tokens as many as frames of a sample, see add_attention


def add_attention(bench: Bench) -> dict:
    """Attention over tokens by stock processes, by the own one; over frames by the own one.

    The frames of sample s are the tokens of step s, so both attentions must give the same counts.
    """
    from lava.proc.io.source import RingBuffer

    from neuroav.sim.lava.processes.attention import SpatialAttention, TemporalAttention

    channels = HEADS * PART
    tokens = bench.rng.random((3, STEPS, TOKENS, channels)) < 0.6
    sources = [RingBuffer(data=np.moveaxis(x.astype(int), 0, -1)) for x in tokens]
    frames = tokens.reshape(3, -1, channels)[:, :STEPS]
    in_turn = [RingBuffer(data=np.moveaxis(x[:, None].astype(int), 0, -1)) for x in frames]
    for cap in (0, 3):
        spatial = SpatialAttention(shape=(TOKENS, channels), heads=HEADS, cap=cap)
        temporal = TemporalAttention(
            shape=(1, channels), heads=HEADS, cap=cap, scrambled=False, steps=SAMPLE, offset=1
        )
        for process, origins in ((spatial, sources), (temporal, in_turn)):
            for origin, port in zip(origins, ("q_in", "k_in", "v_in"), strict=True):
                origin.s_out.connect(getattr(process, port))
        bench.keep(f"own spatial {cap}", spatial.s_out)
        bench.keep(f"own temporal {cap}", temporal.s_out)
    bench.keep("stock spatial", stock_attention(sources))
    return {}


def stock_attention(sources):
    """AND neurons (head, m, i, j), sums over m for every token n, gated by q, summed over i."""
    from lava.proc.lif.process import LIFReset
    from lava.proc.prodneuron.process import ProdNeuron
    from lava.proc.sparse.process import DelaySparse, Sparse
    from scipy.sparse import csr_matrix

    h, m, i, j = np.indices((HEADS, TOKENS, PART, PART)).reshape(4, -1)
    wide, channels = len(h), HEADS * PART

    def links(rows, columns, shape):
        return csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)

    def sparse(origin, weights):
        link = Sparse(weights=weights, num_message_bits=24)
        origin.flatten().connect(link.s_in)
        return link.a_out

    q, k, v = (source.s_out for source in sources)
    keys = links(np.arange(wide), m * channels + h * PART + i, (wide, TOKENS * channels))
    values = links(np.arange(wide), m * channels + h * PART + j, (wide, TOKENS * channels))
    both = LIFReset(shape=(wide,), du=4095, dv=4095, vth=1, reset_interval=1)
    sparse(k, keys).connect(both.a_in)
    sparse(v, values).connect(both.a_in)
    place = np.arange(wide).reshape(HEADS, TOKENS, PART, PART)
    copied = np.broadcast_to(place[:, None], (HEADS, TOKENS, TOKENS, PART, PART))
    targets = np.broadcast_to(place[:, :, None], copied.shape)
    summed = sparse(both.s_out, links(targets.ravel(), copied.ravel(), (wide, wide)))
    product = ProdNeuron(shape=(wide,), vth=0)
    summed.connect(product.a_in1)
    gate = DelaySparse(weights=keys, delays=keys.astype(int), num_message_bits=24)
    q.flatten().connect(gate.s_in)
    gate.a_out.connect(product.a_in2)
    return sparse(product.s_out, links(m * channels + h * PART + j, np.arange(wide),
                                       (TOKENS * channels, wide)))  # fmt: skip


def add_time_sums(bench: Bench) -> dict:
    """The sum over a sample, and a LIFReset whose voltage at its last frame is that sum."""
    from lava.proc.lif.process import LIFReset

    from neuroav.sim.lava.processes.time_sum import TimeSum

    source = bench.source((2, 3), 30)
    own = TimeSum(shape=(2, 3), steps=SAMPLE, offset=3, limit=1 << 22, name="own")
    lif = LIFReset(shape=(2, 3), du=4095, dv=0, vth=131071, reset_interval=SAMPLE, reset_offset=3)
    for process in (own, lif):
        source.s_out.connect(process.a_in)
    bench.keep("own time sum", own.s_out)
    return {"lif voltage": lif.v}


def add_checked(bench: Bench, arith: Arithmetic) -> dict:
    """Neurons whose models are replaced by checked ones in one of two runs."""
    from lava.proc.graded.process import GradedVec
    from lava.proc.lif.process import LIFReset
    from lava.proc.prodneuron.process import ProdNeuron

    from neuroav.sim.lava.checked import Check, record_voltage, set_check

    source = bench.source((3, 4), 300)
    lif = LIFReset(
        shape=(3, 4),
        du=1000,
        dv=700,
        vth=np.arange(20, 260, 20).reshape(3, 4),
        bias_mant=np.arange(12).reshape(3, 4) * 30,
        bias_exp=3,
        reset_interval=SAMPLE,
        reset_offset=2,
    )
    graded = GradedVec(shape=(3, 4), vth=0)
    # currents near the limit: the check has to look at every neuron
    wide = bench.source((3, 4), 130_000)
    strong = LIFReset(shape=(3, 4), du=4095, dv=4096, vth=60_000, reset_interval=1)
    product = ProdNeuron(shape=(3, 4), vth=0)
    source.s_out.connect(product.a_in1)
    wide.s_out.connect(product.a_in2)
    set_check(product, Check("product", STEPS + 1, STEPS + 1, arith))  # beyond 24 bits
    bench.keep("product", product.s_out)
    for name, process, port in (
        ("lif", lif, source),
        ("graded", graded, source),
        ("strong lif", strong, wide),
    ):
        port.s_out.connect(process.a_in)
        set_check(process, Check(name, 1, STEPS, arith))
        bench.keep(name, process.s_out)
    bench.written["recorded voltage"] = bench.file(lif.v.shape)
    record_voltage(lif, bench.written["recorded voltage"])
    return {"voltage": lif.v}


def main(folder: Path) -> None:
    shim.prepare()
    from neuroav.sim.lava.build import CHECKED_MODELS

    results = {}
    parts = {
        "conv": add_convolutions,
        "delay": add_delays,
        "sum": add_accumulators,
        "attention": add_attention,
        "time": add_time_sums,
    }
    for name, add in parts.items():
        bench = Bench(folder)
        results[name] = bench.run({}, add(bench) or {})
    arith = load_profile("loihi2").arithmetic
    for name, models in (("checked", CHECKED_MODELS), ("plain", {})):
        bench = Bench(folder)
        results[name] = bench.run(models, add_checked(bench, arith))
    np.savez(
        folder / "results.npz",
        **{
            f"{part}/{name}": value
            for part, found in results.items()
            for name, value in found.items()
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
