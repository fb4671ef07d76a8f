"""Script: builds SLAYER networks, exports them, and runs each twice; see test_netx_reader.py.

Argument: FOLDER. Writes into FOLDER/KIND for every kind of network: network.net, frames.npy
(samples, steps, *shape), slayer<i>.npy (what block i sends as SLAYER computes it, (samples, steps,
*shape)) and layer<i>.npy (netx's spikes in Lava, (*shape reversed, chip steps)), all samples one
after the other with a reset between.
"""

import sys
from pathlib import Path

import h5py
import numpy as np
import torch

from neuroav.sim.lava import shim

SAMPLES, STEPS = 3, 9


def blocks(kind: str, block):
    """Return the shape of the input and SLAYER's blocks."""
    from lava.lib.dl.slayer.neuron.norm import MeanOnlyBatchNorm

    neuron = {"threshold": 0.9, "current_decay": 0.35, "voltage_decay": 0.12}
    normed = neuron | {"norm": MeanOnlyBatchNorm}
    if kind == "conv":
        first = block.Conv(neuron, 2, 4, 3, stride=2, padding=1, weight_scale=3)
        second = block.Conv(normed, 4, 6, (3, 2), groups=2, weight_scale=4)
        return (2, 9, 8), [
            first,
            second,
            block.Flatten(),
            block.Dense(neuron, 6 * 3 * 3, 10, weight_scale=6),
        ]
    if kind == "recurrent":
        return (12,), [
            block.Dense(neuron, 12, 16, weight_scale=6, weight_norm=True),
            block.Recurrent(dict(neuron), 16, 8, weight_scale=6),
            block.Dense(neuron, 8, 5, weight_scale=8),
        ]
    delayed = block.Dense(neuron, 12, 16, weight_scale=6, delay=True)
    second = block.Dense(normed, 16, 5, weight_scale=6)
    return (12,), [delayed, second, block.Affine(dict(neuron), 5, 3)]


def main(folder: Path, kind: str, hdf5) -> None:
    from lava.lib.dl.slayer.block import cuba

    folder.mkdir()
    torch.manual_seed(0)
    shape, layers = blocks(kind, cuba)
    rng = np.random.default_rng(1)
    frames = (rng.random((SAMPLES, STEPS, *shape)) < 0.35).astype(np.int32)
    np.save(folder / "frames.npy", frames)
    x = torch.from_numpy(np.moveaxis(frames, 1, -1).copy()).float()
    with torch.no_grad():
        for _ in range(8):  # sets shapes and means, draws delays
            run(layers, x)
        for layer in layers:
            layer.eval()
            if getattr(layer, "delay", None) is not None:
                layer.delay.delay.data = torch.arange(16).float() % 3
        for number, spikes in enumerate(run(layers, x)):
            np.save(folder / f"slayer{number}.npy", np.moveaxis(spikes.numpy(), -1, 1))
    with h5py.File(folder / "network.net", "w") as file:
        for number, layer in enumerate(layers):
            layer.export_hdf5(file.create_group(f"layer/{number}"))
    netx(hdf5, folder, frames)


def run(layers, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the spikes of every block with neurons, each in its own time."""
    found = []
    for layer in layers:
        layer.delay_shift = False  # of one step per block, which is no frame
        if hasattr(layer, "spike_state"):
            layer.spike_state = torch.zeros(1)
            layer.neuron.current_state = layer.neuron.voltage_state = torch.zeros(1)
        x = layer(x)
        if hasattr(layer, "neuron"):
            found.append(x)
    return found


def netx(hdf5, folder: Path, frames: np.ndarray) -> None:
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg
    from lava.proc.io.sink import RingBuffer as Sink
    from lava.proc.io.source import RingBuffer as Source

    shape = frames.shape[2:]
    network = hdf5.Network(
        net_config=str(folder / "network.net"),
        input_shape=shape[::-1],
        reset_interval=STEPS,
        reset_offset=1,
    )
    data = frames.reshape(-1, *shape)
    steps = len(data) + len(network)
    source = Source(data=data.transpose())
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
    netx_of_lava_dl = shim.import_netx().hdf5
    for name in ("conv", "recurrent", "delay"):
        main(Path(sys.argv[1]) / name, name, netx_of_lava_dl)
