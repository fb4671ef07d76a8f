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

        from neuroav.sim.lava.processes.recorder import PORTS, Recorder, StateRecorder

        names, files = list(self.recorded), {}
        for name in [*names, *states]:
            port = self.recorded.get(name) or states[name]
            files[name] = str(self.folder / f"{len(files)}.npy")
            np.save(files[name], np.zeros((STEPS, *port.shape), np.int32))
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
            StateRecorder(variable=variable, file=files[name])
        config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
        roots[0].run(RunSteps(STEPS), config, {"pypy_channel_size": 2})
        results = {name: np.load(file) for name, file in files.items()}
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


def add_checked(bench: Bench, arith: Arithmetic) -> dict:
    """Neurons whose models are replaced by checked ones in one of two runs."""
    from lava.proc.graded.process import GradedVec
    from lava.proc.io.sink import Read
    from lava.proc.lif.process import LIFReset

    from neuroav.sim.lava.checked import Check, set_check

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
    for name, process, port in (
        ("lif", lif, source),
        ("graded", graded, source),
        ("strong lif", strong, wide),
    ):
        port.s_out.connect(process.a_in)
        set_check(process, Check(name, 1, STEPS, arith))
        bench.keep(name, process.s_out)
    read = Read(buffer=STEPS)
    read.connect_var(lif.v)
    bench.sunk["voltage"] = read
    return {"voltage": lif.v}


def main(folder: Path) -> None:
    shim.prepare()
    from neuroav.sim.lava.build import CHECKED_MODELS

    results = {}
    for name, add in (("conv", add_convolutions), ("delay", add_delays), ("sum", add_accumulators)):
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
