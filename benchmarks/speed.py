"""Every timed claim in one run: simulation, training steps, export, and how they grow.

    python benchmarks/speed.py RUN FILE.nav --out DIR [--only simulation training rivals scaling
                               lava] [--repeats 7]

RUN is the run folder that FILE.nav was exported from. Runs the scripts beside this one after one
another, each in a process of its own, and writes DIR/speed.md: what the machine is, one table of
ratios (every ratio within one run, in turns), then every script's own tables with medians and
spread. Give the machine nothing else to do meanwhile. About 40 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from machine import facts

HERE = Path(__file__).resolve().parent
TRAINED = (("d64", "scmrl"), ("d256", "scmrl"), ("demo", "scmrl"))
TITLES = {
    "simulation": "Simulation",
    "training": "Training steps",
    "rivals": "Training steps of other frameworks",
    "scaling": "Export and simulation by size, steps, batch and rate",
    "lava": "Lava's runtime and the inline engine",
}


def commands(args: argparse.Namespace) -> dict[str, list[list[str]]]:
    """Return the scripts of every section with their arguments."""
    repeats = ["--repeats", str(args.repeats)]
    simulated = [str(args.run), str(args.file), "--json", str(args.out / "simulation.json")]
    return {
        "simulation": [["simulation.py", *simulated, *repeats]],
        "training": [
            ["training_step.py", "--size", size, "--models", model, *repeats]
            for size, model in TRAINED
        ],
        "rivals": [["training_rivals.py", *repeats]],
        "scaling": [["scaling.py", "--out", str(args.out), *repeats]],
        "lava": [["lava_engines.py", str(args.file)]],
    }


def run(command: list[str]) -> str:
    """Return what a script prints; SystemExit with its own words where it fails."""
    print(" ".join(command), flush=True)
    done = subprocess.run(
        [sys.executable, str(HERE / command[0]), *command[1:]],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def headline(out: Path) -> list[str]:
    """Return the table of ratios from the sections' numbers."""
    lines = ["| ratio | this run |", "|---|--:|"]
    simulated = out / "simulation.json"
    if simulated.exists():
        found = json.loads(simulated.read_text(encoding="utf-8"))
        for best, values in found["ratios"].items():
            lines += [f"| {best}: time {k} | {v:.2f} |" for k, v in values.items() if "of " in k]
            for name, one in (found["lava"] or {}).items():
                if name != "samples":
                    key = "whole_s" if one["running_s"] is None else "running_s"
                    lines.append(f"| {name}: time of {best} | {one[key] / values['seconds']:.0f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=tuple(TITLES), default=tuple(TITLES))
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    machine = [f"| {name} | {value} |" for name, value in facts().items()]
    sections = []
    for section in args.only:
        texts = [run(command) for command in commands(args)[section]]
        sections += [f"## {TITLES[section]}", *texts]
    parts = ["# Speed", "\n".join(["| machine | |", "|---|---|", *machine])]
    parts += ["\n".join(headline(args.out)), *sections]
    page = args.out / "speed.md"
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
