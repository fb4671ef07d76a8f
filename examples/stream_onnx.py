"""A spiking network as a stream: one step in, one prediction out, in plain ONNX Runtime.

Two parts. The first needs NeuroAV, once, and makes the model of one step:

    neuroav convert shipped:tiny.nav --to onnx --out tiny.onnx

The second is this script. It needs numpy, onnxruntime and the file, and not NeuroAV:

    python examples/stream_onnx.py tiny.onnx INPUTS.npz

INPUTS.npz has one array per input of the model, under its name: (samples, steps, *shape), or one
sample (steps, *shape). Any number of steps will do; nothing but the states is kept from one to the
next. Without arguments the script makes both files from the shipped network first, and imports
NeuroAV for that alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

DTYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


class Stream:
    """A model of one step and its states, which are 0 at first."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # one step of a small network is too little to share
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        facts = self.session.get_modelmeta().custom_metadata_map
        if facts.get("format") != "neuroav-onnx-step":
            raise SystemExit(f"{path}: is no model of one step; convert with --form step")
        self.classes: list[str] = json.loads(facts["classes"])
        self.output = facts["output"]
        self.states: dict[str, str] = json.loads(facts["states"])  # name -> output that replaces it
        described = {i.name: i for i in self.session.get_inputs()}
        self.inputs = [name for name in described if name not in self.states]
        self.dtype = {name: DTYPES[i.type] for name, i in described.items()}
        self.shape = {name: tuple(i.shape[1:]) for name, i in described.items()}
        self.flag = [o.name for o in self.session.get_outputs() if o.type == "tensor(bool)"]
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next step is the first of a sample."""
        self.state = {
            name: np.zeros((1, *self.shape[name]), self.dtype[name]) for name in self.states
        }

    def step(self, frame: dict[str, np.ndarray]) -> np.ndarray:
        """Return the class scores so far; frame: one step of every input, of its shape."""
        feed = {n: frame[n][None].astype(self.dtype[n]) for n in self.inputs}
        wanted = [self.output, *self.states.values(), *self.flag]
        scores, *found = self.session.run(wanted, {**feed, **self.state})
        self.state = dict(zip(self.states, found, strict=False))
        if self.flag and found[-1].any():
            raise SystemExit("a count or a register left its range; the network cannot go on")
        return scores[0]


def samples(path: Path, stream: Stream) -> Iterator[dict[str, np.ndarray]]:
    """Yield the recordings of a file, (steps, *shape) by input."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {}
        for name in stream.inputs:
            if name not in file:
                raise SystemExit(f"{path}: has {sorted(file)}, the model needs {stream.inputs}")
            array, shape = file[name], stream.shape[name]
            if array.shape[-len(shape) :] != shape or array.ndim - len(shape) not in (1, 2):
                raise SystemExit(
                    f"{path}: {name} is {array.shape}, needs (samples, steps, *{shape})"
                )
            arrays[name] = array if array.ndim - len(shape) == 2 else array[None]
    for number in range(min(map(len, arrays.values()))):
        yield {name: array[number] for name, array in arrays.items()}


def frames(sample: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Yield a recording step by step; a sensor would do so without an end."""
    for t in range(min(map(len, sample.values()))):
        yield {name: array[t] for name, array in sample.items()}


def main(model: Path, recordings: Path) -> None:
    stream = Stream(model)
    kept = sum(state.nbytes for state in stream.state.values())
    print(f"{model.name}: inputs {', '.join(stream.inputs)}; {kept} bytes of states are kept")
    seconds = []
    for number, sample in enumerate(samples(recordings, stream)):
        stream.reset()
        path = []
        for frame in frames(sample):
            begun = time.perf_counter()
            scores = stream.step(frame)
            seconds.append(time.perf_counter() - begun)
            path.append(stream.classes[int(scores.argmax())])
        print(f"sample {number}: {' > '.join(path)}; scores {scores.tolist()}")
    print(f"{len(seconds)} steps, {1e6 * float(np.median(seconds)):.0f} us per step (median)")


def make_shipped(folder: Path) -> tuple[Path, Path]:
    """Write the shipped network and its samples; the first part of the two, through NeuroAV."""
    from neuroav.navfile import load
    from neuroav.simulate import resolve_deployment
    from neuroav_export.writers import convert

    deployment = load(resolve_deployment("shipped:tiny.nav"))
    convert(deployment, "onnx", folder / "tiny.onnx", form="step")
    np.savez(folder / "inputs.npz", **deployment.counts(deployment.probe.inputs))
    return folder / "tiny.onnx", folder / "inputs.npz"


if __name__ == "__main__":
    if len(sys.argv) == 3:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    elif len(sys.argv) == 1:
        with tempfile.TemporaryDirectory() as folder:
            main(*make_shipped(Path(folder)))
    else:
        raise SystemExit("usage: python examples/stream_onnx.py [MODEL.onnx INPUTS.npz]")
