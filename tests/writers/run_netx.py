"""Script: loads FOLDER/network.net with lava-dl's netx and runs it in Lava; see test_netx.py.

Reads frames.npy (frames, *shape) int32 in our axis order; writes one file per layer, its spikes in
netx's axis order and in Lava's own time, (*shape, steps).
"""

import sys
from pathlib import Path

import h5py
import numpy as np

from neuroav.sim.lava import shim


def main(folder: Path) -> None:
    hdf5 = shim.import_netx().hdf5
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source

    path = folder / "network.net"
    with h5py.File(path, "r") as file:
        settings = {
            k: int(file.attrs[k]) for k in ("input_message_bits", "reset_interval", "reset_offset")
        }
        flat_first = file["layer/1/type"][0] == b"flatten"
    network = hdf5.Network(net_config=str(path), **settings)
    frames = np.load(folder / "frames.npy")
    steps = len(frames) + len(network)
    data = frames.reshape(len(frames), -1) if flat_first else frames.transpose()
    source = Source(data=data.transpose() if flat_first else data)
    source.s_out.connect(network.inp)
    sinks = []
    for layer in network.layers:
        sinks.append(Sink(shape=layer.shape, buffer=steps))
        layer.neuron.s_out.connect(sinks[-1].a_in)
    network.run(RunSteps(steps), Loihi2SimCfg(select_tag="fixed_pt"))
    for number, sink in enumerate(sinks):
        np.save(folder / f"layer{number}.npy", sink.data.get().astype(np.int32))
    network.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
