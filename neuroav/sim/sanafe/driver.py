"""Replay recorded spikes in SANA-FE. Needs nothing but sanafe and numpy.

    python run.py [--folder FOLDER] [--timing simple|detailed] [--out RESULT.json]

FOLDER holds arch.yaml, network.yaml and spikes.npz. Neurons do not compute: their decay is total
and their threshold far above any synaptic sum, so a neuron fires exactly in the steps in which its
bias is set, and that is where it fired when the network was recorded.
"""

import argparse
import contextlib
import json
import os
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import sanafe

BIAS = 2.0**40  # twice the threshold in network.yaml
PER_STEP = ("synapse_energy", "dendrite_energy", "soma_energy", "network_energy", "hops",
            "spikes", "updated", "fired", "sim_time")  # fmt: skip


def load(folder):
    """Return the chip with the network on it, and its neurons by number of the group."""
    with np.load(folder / "spikes.npz", allow_pickle=False) as file:
        names, steps, spikes = file["groups"].tolist(), int(file["steps"]), file["spikes"]
    architecture = sanafe.load_arch(str(folder / "arch.yaml"))
    network = sanafe.load_net(str(folder / "network.yaml"), architecture)
    chip = sanafe.SpikingChip(architecture)
    chip.load(network)
    mapped = chip.mapped_neuron_groups
    return chip, [mapped[name] for name in names], steps, spikes


def replay(chip, neurons, steps, spikes, timing):
    """Return what SANA-FE counts in every step, as a list by name."""
    found: dict[str, list[float]] = {name: [] for name in (*PER_STEP, "packets")}
    first = np.searchsorted(spikes[:, 0], np.arange(steps + 1))
    for step in range(steps):
        firing = spikes[first[step] : first[step + 1], 1:].tolist()
        for group, neuron in firing:
            neurons[group][neuron].set_attributes(model_attributes={"bias": BIAS})
        result = chip.sim(1, timing_model=timing, processing_threads=1, perf_trace=True)
        for group, neuron in firing:
            neurons[group][neuron].set_attributes(model_attributes={"bias": 0.0})
        for name in PER_STEP:
            found[name] += result["perf_trace"][name]
        found["packets"].append(result["packets_sent"])
    return found


def end_with(parent):
    """End this process when the one that started it has gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def show(found):
    """Print the sums over all steps."""
    for name in ("synapse_energy", "soma_energy", "network_energy"):
        print(f"{name:16} {sum(found[name]) * 1e6:.6f} uJ")
    for name in ("spikes", "packets", "hops", "fired", "updated"):
        print(f"{name:16} {sum(found[name])}")
    print(
        f"{'sim_time':16} {sum(found['sim_time']) * 1e6:.3f} us in {len(found['sim_time'])} steps"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--timing", choices=("simple", "detailed"), default="simple")
    parser.add_argument("--out", type=Path, help="write what every step costs as JSON")
    parser.add_argument("--parent", type=int, help="end when this process, the parent, has ended")
    options = parser.parse_args()
    if options.parent:
        threading.Thread(target=end_with, args=(options.parent,), daemon=True).start()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        chip, neurons, steps, spikes = load(options.folder)
        found = replay(chip, neurons, steps, spikes, options.timing)
    if options.out is None:
        show(found)
    else:
        part = options.out.with_name(options.out.name + ".part")
        part.write_text(json.dumps({"sanafe": version("sanafe"), "per_step": found}))
        os.replace(part, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
