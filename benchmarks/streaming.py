"""Live input: latency, real-time factor and memory by the length of the input.

    python benchmarks/streaming.py [FILE.nav] [--seconds 10 100 1000] [--paced 20]
                                   [--frames 200000]

Made-up sensors of the true formats: an event file (N-MNIST records, 34x34 pixels, 13,000 events per
second as N-MNIST has) and a WAV file, both as long as asked for, streamed window by window through
FILE.nav (a network of nmnist-fsdd or av-digits; its demo for example) as fast as possible and, for
``--paced`` seconds, in real time. Each length runs in a process of its own, so that its peak of
memory is its own. Then ``--frames`` steps of a small network with a loop, by both executors, with
what Python had allocated after 10 % of them and at the end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuroav import integer as ig
from neuroav.data.formats.nmnist import write_nmnist
from neuroav.deployment import Deployment
from neuroav.graph import SpikingGraph
from neuroav.hardware import load_profile
from neuroav.navfile import load
from neuroav.nodes import Input
from neuroav.simulate import resolve_deployment
from neuroav.streaming.opening import Wanted, open_session
from neuroav.streaming.sensing import Told, sensing
from neuroav.streaming.stepper import BACKENDS, Stepper

EVENTS_HZ, SENSOR = 13_000, 34
TINY = Told(window_us=300_000, sensor=(SENSOR, SENSOR), audio_window_us=640_000)


def event_chunks(seconds: int, seed: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """Yield random events in order of time, a second at a time."""
    rng = np.random.default_rng(seed)
    for second in range(seconds):
        time_us = second * 1_000_000 + np.sort(rng.integers(0, 1_000_000, EVENTS_HZ))
        x, y = rng.integers(0, SENSOR, (2, EVENTS_HZ))
        yield {"x": x, "y": y, "p": rng.integers(0, 2, EVENTS_HZ), "time": time_us}


def write_sound(path: Path, seconds: int, rate: int) -> None:
    """Write tones that come and go, in a little noise."""
    rng = np.random.default_rng(0)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        for second in range(seconds):
            t = second + np.arange(rate) / rate
            tone = 8000 * np.sin(2 * np.pi * 700 * t) * (np.sin(9 * t) > 0)
            file.writeframes((tone + rng.normal(0, 50, rate)).astype("<i2").tobytes())


def streamed(file: str, folder: Path, seconds: int, speed: str) -> dict:
    """Make the input, stream it, return the session's summary."""
    deployment = load(resolve_deployment(file))
    told = None if deployment.provenance.get("run") else TINY
    hearing = sensing(deployment, told).hearing
    rate = (hearing.rate or 16_000) if hearing else 0
    events, sound = folder / "eye.bin", folder / "ear.wav"
    write_nmnist(events, event_chunks(seconds))
    if hearing:
        write_sound(sound, seconds, rate)
    audio = str(sound) if hearing else None
    session = open_session(
        deployment, Wanted(events=str(events), audio=audio, told=told, speed=speed)
    )
    begun = time.process_time()
    for _ in session:
        pass
    found = session.summary()
    return found | {"cpu_ms": 1000 * (time.process_time() - begun) / max(1, found["windows"])}


def in_own_process(file: str, seconds: int, speed: str) -> dict:
    """Return the summary of one length, from a fresh interpreter."""
    command = [sys.executable, __file__, file, "--one", str(seconds), "--speed", speed]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def endless() -> tuple[Deployment, np.ndarray]:
    """Return a small network with a loop and leaky scores, which may run for ever, and frames."""
    rng = np.random.default_rng(3)
    lif = {"bias_mantissa": np.array(0), "bias_exponent": 0, "threshold": np.array(30)}
    dense = ig.IntDense("eye", 0, 2 * rng.integers(-20, 40, (6, 5)), 8, "mixed")
    back = ig.IntDense("cells", 2, 2 * rng.integers(-20, 5, (6, 6)), 8, "mixed", lag=3)
    read = ig.IntDense("cells", 0, 2 * rng.integers(-20, 40, (3, 6)), 8, "mixed")
    populations = {
        "eye": ig.IntInput((5,), (), 3),
        "cells": ig.IntLif((6,), (dense, back), **lif, decay_u=4095, decay_v=1000),
        "head": ig.IntReadout((3,), (read,), np.zeros(3, int), None, 400, 0),
    }
    graph = ig.IntGraph(populations, "head", 4, 0.01, dict.fromkeys(populations, (1, 1)))
    twin = SpikingGraph({"x": Input((1,))}, {"x": ()}, {"x": (1,)}, "x", 0.01, 4, "lowered")
    classes = ("a", "b", "c")
    return Deployment(graph, twin, load_profile("loihi2"), classes, {}), rng.integers(0, 3, (50, 5))


def stepped(backend: str, frames: int) -> dict:
    """Step the endless network; return time per step, and what was allocated early and late."""
    deployment, inputs = endless()
    stepper, kept = Stepper(deployment, backend), []
    tracemalloc.start()
    begun = time.perf_counter()
    for t in range(frames):
        stepper.step({"eye": inputs[t % len(inputs)]}, ("head",))
        if t + 1 in (frames // 10, frames):
            kept.append(tracemalloc.get_traced_memory()[0])
    seconds = time.perf_counter() - begun
    tracemalloc.stop()
    return {
        "backend": backend, "frames": frames, "us_per_frame": 1e6 * seconds / frames,
        "bytes_early": kept[0], "bytes_late": kept[1], "state_bytes": stepper.state_bytes,
    }  # fmt: skip


def row(seconds: int, speed: str, found: dict) -> str:
    ms = found["latency_ms"]
    return (
        f"| {seconds} s, {speed} | {found['windows']} | {found['dropped']} | {ms['median']:.1f} | "
        f"{ms['p95']:.1f} | {ms['largest']:.1f} | {found['cpu_ms']:.1f} | "
        f"{found['real_time_factor']:.1f} | {found['peak_memory_mb']:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", default="shipped:tiny.nav")
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--paced", type=int, default=20, help="seconds in real time, 0 for none")
    parser.add_argument("--frames", type=int, default=200_000)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--speed", default="max", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(streamed(args.file, Path(folder), args.one, args.speed)))
        return
    print(f"{args.file}\n")
    print("| input | windows | dropped | latency ms, median | 95 % | largest | CPU ms per window "
          "| times real time | peak MB |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")  # fmt: skip
    for seconds in args.seconds:
        print(row(seconds, "max", in_own_process(args.file, seconds, "max")), flush=True)
    if args.paced:
        found = in_own_process(args.file, args.paced, "realtime")
        print(row(args.paced, "real time", found), flush=True)
    for backend in BACKENDS if args.frames else ():
        found = stepped(backend, args.frames)
        print(f"\n{found['frames']} steps by {backend}: {found['us_per_frame']:.0f} us each "
              f"(tracemalloc on), {found['state_bytes']} bytes of states; allocated after 10 %: "
              f"{found['bytes_early']}, at the end: {found['bytes_late']}")  # fmt: skip


if __name__ == "__main__":
    main()
