"""Write deployments in every format that is executed, run the files, compare them with `fast`.

    python benchmarks/formats.py runs/demo/scmrl.nav runs/demo/audio.nav --samples 8

For each file and format one row: nodes carried of all, messages compared (outputs that are not 0),
and whether every node's output is equal, frame by frame (the same digest on both sides). ONNX runs
in ONNX Runtime, step by step and unrolled; the netx chains (one per input, with rounded biases,
compared with the network of the same biases) and the Lava script run in Lava, in processes of their
own. What a format leaves out is in docs/formats.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from neuroav import navfile
from neuroav.deployment import Deployment
from neuroav.errors import UnsupportedNode
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav.simulate import resolve_deployment
from neuroav_export.writers import lava, netx, onnx

NETX = Path(__file__).resolve().parents[1] / "tests" / "writers" / "run_netx.py"
Outputs = Mapping[str, np.ndarray]


class Row(NamedTuple):
    """One format of one file. digest: of the nodes carried, as the file computed them."""

    format: str
    carried: int
    nodes: int
    messages: int
    digest: str
    equal: bool


def compared(form: str, total: int, found: Outputs, expected: Outputs) -> Row:
    """Return the row for the outputs of the nodes that a format carries."""
    own, ours = digest(found), digest({n: expected[n] for n in found})
    messages = sum(int(np.count_nonzero(v)) for v in found.values())
    return Row(form, len(found), total, messages, own, own == ours)


def digest(outputs: Outputs) -> str:
    """Return sha256 over names and outputs, (samples, steps, *shape) as int32."""
    found = hashlib.sha256()
    for name in sorted(outputs):
        found.update(name.encode() + np.ascontiguousarray(outputs[name], "<i4").tobytes())
    return found.hexdigest()[:12]


def populations(deployment: Deployment) -> list[str]:
    """Return all that computes: everything but the inputs."""
    graph = deployment.integer
    return [n for n in graph.order if n not in graph.inputs]


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def by_onnx(deployment: Deployment, inputs: Outputs, folder: Path, form: str) -> Outputs:
    """Return what ONNX Runtime gives for the populations, in a step model or an unrolled one."""
    path = folder / f"{form}.onnx"
    onnx.write(deployment, path, form=form)
    run = session(path)
    names, order = [o.name for o in run.get_outputs()], populations(deployment)
    counts = {n: v.astype(np.int64) for n, v in deployment.counts(inputs).items()}
    if form == "unrolled":
        values = dict(zip(names, run.run(None, counts), strict=True))
        return {n: values[n] for n in order}
    states = json.loads(run.get_modelmeta().custom_metadata_map["states"])
    shapes = {i.name: i.shape[1:] for i in run.get_inputs()}
    samples = len(next(iter(counts.values())))
    state = {n: np.zeros((samples, *shapes[n]), np.int64) for n in states}
    frames: dict[str, list[np.ndarray]] = {n: [] for n in order}
    for t in range(deployment.integer.steps):
        feed = {n: v[:, t] for n, v in counts.items()} | state
        values = dict(zip(names, run.run(None, feed), strict=True))
        state = {n: values[after] for n, after in states.items()}
        for n in order:
            frames[n].append(values[n])
    return {n: np.stack(v, axis=1) for n, v in frames.items()}


def by_netx(deployment: Deployment, inputs: Outputs, folder: Path, branch: str) -> Outputs:
    """Return the spikes of a chain that lava-dl's netx builds and Lava runs."""
    done = netx.write(deployment, folder / "network.net", branch=branch, round_bias=True)
    counts = deployment.counts(inputs)[branch]
    np.save(folder / "frames.npy", counts.reshape(-1, *counts.shape[2:]))
    subprocess.run([sys.executable, str(NETX), str(folder)], check=True, capture_output=True)
    found = {}
    for number, name in enumerate(done.nodes[1:]):
        spikes = np.load(folder / f"layer{number}.npy")
        shape = deployment.integer.populations[name].shape
        frames = np.moveaxis(spikes, -1, 0)[1 + number : 1 + number + len(counts) * counts.shape[1]]
        turned = frames.transpose(0, *range(frames.ndim - 1, 0, -1))
        found[name] = turned.reshape(*counts.shape[:2], *shape)
    return found


def by_script(deployment: Deployment, inputs: Outputs, folder: Path) -> Outputs:
    """Return what the generated Lava script gives, without NeuroAV."""
    target = folder / "lava"
    lava.write(deployment, target, inputs=inputs)
    run = [sys.executable, str(target / "run.py"), "--out", str(folder / "out.npz")]
    subprocess.run(run, check=True, capture_output=True, cwd=folder)
    with np.load(folder / "out.npz", allow_pickle=False) as file:
        return {n: file[n] for n in populations(deployment)}


def rows(deployment: Deployment, inputs: Outputs) -> Iterator[Row]:
    """Yield a row for every format that takes the network."""
    total = len(populations(deployment))
    expected = collect(fast.run(deployment, inputs))
    for form in ("step", "unrolled"):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = by_onnx(deployment, inputs, Path(folder), form)
            except UnsupportedNode as error:  # a step model has no node that needs a sample
                print(f"onnx, {form}: {str(error)[:110]}", file=sys.stderr)
                continue
            yield compared(f"onnx, {form}, in ONNX Runtime", total, found, expected)
    rounded, _ = netx.round_biases(deployment)
    same = collect(fast.run(rounded, inputs))
    for branch in deployment.integer.inputs:
        with tempfile.TemporaryDirectory() as folder:
            found = by_netx(deployment, inputs, Path(folder), branch)
            yield compared(f"netx, chain of {branch}, in Lava", total, found, same)
    with tempfile.TemporaryDirectory() as folder:
        found = by_script(deployment, inputs, Path(folder))
        yield compared("Lava script", total, found, expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE.nav")
    parser.add_argument("--samples", type=int, default=4, help="of those in the file")
    options = parser.parse_args()
    print(
        "| file | format | nodes | messages | digest | equal to fast |\n|---|---|---|---|---|---|"
    )
    differ = 0
    for file in options.files:
        deployment = navfile.load(resolve_deployment(file))
        if deployment.probe is None:
            parser.error(f"{file}: carries no samples")
        inputs = {n: v[: options.samples] for n, v in deployment.probe.inputs.items()}
        for row in rows(deployment, inputs):
            differ += not row.equal
            print(
                f"| {Path(file).name} | {row.format} | {row.carried} of {row.nodes} | "
                f"{row.messages:,} | {row.digest} | {'yes' if row.equal else 'NO'} |",
                flush=True,
            )
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
