"""Random integer graphs through every executor: they must agree in every output and voltage.

    python benchmarks/fuzz.py --graphs 10000 --lava 500 --out runs/fuzz [--seed 0] [--jobs 2]
                              [--minutes 30]

Graph N of a seed is always the same, whatever --jobs. Half of the graphs get other inputs than
those they were drawn for, from silent to full, so populations fall silent, saturate or leave their
registers: then every executor must refuse. The fast executor is compared on all graphs, with
voltages, by each of the ways that it may take in turn (as it chooses, whole products, events alone,
torch's operations alone, which are what a GPU runs); Lava on the first --lava graphs, without.

Writes summary.json and summary.md; every graph that differs is kept under failures/ as FILE.nav,
with the inputs as its probe, beside a text that says what differs first. A second call goes on
where the first stopped (state.json). Exits 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroav import integer as ig
from neuroav import navfile, simulate
from neuroav.counts import SATURATED, SILENT
from neuroav.deployment import Deployment, Probe
from neuroav.errors import ConfigError, NeuroavError, OutOfRange
from neuroav.files import written_whole
from neuroav.sim import lava
from neuroav.verify import first_divergence

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzz_summary import markdown, summary
from strategies_intgraph import random_deployment
from ways import WAYS, forced

CHUNK = 25  # graphs between two writings of the state, and at most in one Lava worker
RATES = (0.0, 0.02, 0.1, 0.4, 0.9, 1.0)  # of the inputs a graph was not drawn for
REFUSED = OutOfRange.__name__
Outputs = dict[str, np.ndarray]
SECTIONS = (
    "total", "nodes", "projections", "neurons", "steps", "samples", "inputs", "rates", "ways",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """One graph with its inputs; rate: of the inputs, or 'own'; batch, way: of ``fast``."""

    number: int
    deployment: Deployment
    inputs: Outputs
    rate: str
    batch: int

    @property
    def way(self) -> str:
        return WAYS[self.number % len(WAYS)]


@dataclass(frozen=True)
class Result:
    """What an executor did: outputs and voltages ``v(name)``, or the error it raised."""

    values: Outputs = field(default_factory=dict)
    error: str = ""
    message: str = ""


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts by section, and the kept cases as (file name, what differs first)."""

    counts: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in SECTIONS}
    )
    failures: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: Tally) -> Tally:
        counts = {name: self.counts[name] + other.counts[name] for name in SECTIONS}
        return Tally(counts, self.failures + other.failures)


# --- one graph ---------------------------------------------------------------------------------
def draw(seed: int, number: int) -> Case:
    """Return graph ``number``; the same for the same seed."""
    rng = np.random.default_rng([seed, number])
    deployment, inputs = random_deployment(
        int(rng.integers(2**32)),
        hidden=int(rng.integers(1, 9)),
        steps=int(rng.choice((1, 2, 3, 5, 8, 13))),
        samples=(samples := int(rng.integers(1, 5))),
        largest=int(rng.choice((4, 7, 7, 12))),
    )
    batch, rate = int(rng.integers(1, samples + 1)), float(rng.choice(RATES))
    if rng.random() < 0.5:
        return Case(number, deployment, inputs, "own", batch)
    for name, pop in deployment.integer.inputs.items():
        fired = rng.random(inputs[name].shape) < rate
        counts = rng.integers(1, pop.max_count + 1, fired.shape)
        inputs[name] = (fired * counts).astype(np.int32)
    return Case(number, deployment, inputs, f"{rate:g}", batch)


def attempt(run: Callable[[], Outputs]) -> Result:
    """Return what ``run`` gives or raises: a crash is a finding, not the end of the search."""
    try:
        return Result(run())
    except Exception as error:
        return Result(error=type(error).__name__, message=str(error))


def run_case(case: Case, backend: str, **options: Any) -> Result:
    """Return outputs and voltages, joined over samples."""

    def run() -> Outputs:
        traces = list(
            simulate.executor(backend)(case.deployment, case.inputs, states=True, **options)
        )
        parts = [dict(t.outputs) | {f"v({n})": v for n, v in t.states.items()} for t in traces]
        return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}

    return attempt(run)


def difference(case: Case, expected: Result, found: Result, backend: str) -> str | None:
    """Return a sentence on the first difference to the reference, None if there is none."""
    if expected.error not in ("", REFUSED):
        return f"reference raised {expected.error}: {expected.message}"
    if expected.error != found.error:
        said = [
            f"{name} raised {r.error}: {r.message}" if r.error else f"{name} ran"
            for name, r in (("reference", expected), (backend, found))
        ]
        return "; ".join(said)
    if expected.error:
        return None
    if first := first_divergence(case.deployment, expected.values, found.values):
        return f"reference and {backend} differ first in {json.dumps(first)}"
    for name, value in found.values.items():  # Lava brings no voltages
        places = np.argwhere(expected.values[name] != value)
        if len(places):
            place = tuple(int(i) for i in places[0])
            return (
                f"reference and {backend} have equal outputs; {name} differs first at (sample, "
                f"step, *place) {place}: {expected.values[name][place]}, {value[place]}"
            )
    return None


def run_lava(cases: Sequence[Case], expected: Sequence[Result]) -> list[Result]:
    """Return Lava's results; those that the reference ran share one worker.

    Where that worker fails every graph gets its own, so that the one at fault is found.
    """

    def alone(case: Case) -> Result:
        return attempt(lambda: lava.run_many([(case.deployment, case.inputs)])[0])

    calm = [c for c, r in zip(cases, expected, strict=True) if not r.error]
    try:
        found = lava.run_many([(c.deployment, c.inputs) for c in calm])
        results = {c.number: Result(v) for c, v in zip(calm, found, strict=True)}
    except NeuroavError:
        results = {c.number: alone(c) for c in calm}
    return [results.get(c.number) or alone(c) for c in cases]


def keep(case: Case, backend: str, text: str, out: Path) -> tuple[str, str]:
    """Write a case that differs as FILE.nav and FILE.txt; return (file name, first difference)."""
    folder = out / "failures"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"graph-{case.number}-{backend}.nav"
    labels = np.zeros(len(next(iter(case.inputs.values()))), np.int64)
    navfile.save(replace(case.deployment, probe=Probe(case.inputs, labels)), path)
    command = f"neuroav verify {path} --backends reference,{backend}"
    note = f"{text}\n\n{command}\nbatch of the fast executor: {case.batch}, {case.way}\n"
    path.with_suffix(".txt").write_text(note, encoding="utf-8")
    return path.name, text


def tally(case: Case, result: Result) -> Tally:
    """Return what one graph adds to the summary."""
    found, graph = Tally(), case.deployment.integer
    count = found.counts
    count["total"]["graphs"] = 1
    count["total"]["refused"] = int(bool(result.error))
    count["neurons"][str(sum(p.neurons for p in graph.populations.values()))] = 1
    count["steps"][str(graph.steps)] = 1
    count["samples"][str(len(next(iter(case.inputs.values()))))] = 1
    count["inputs"][case.rate] = 1
    count["ways"][case.way] = 1
    for name, pop in graph.populations.items():
        count["nodes"][type(pop).__name__] += 1
        count["projections"].update(type(p).__name__ for p in pop.projections)
        if result.error:
            continue
        sent = result.values[name] != 0
        count["total"]["values"] += sent.size
        count["total"]["messages"] += int(sent.sum())
        if isinstance(pop, ig.SPIKING_CLASSES):
            rate = float(sent.mean())
            count["total"]["spiking populations"] += 1
            count["total"]["silent"] += rate < SILENT
            count["total"]["saturated"] += rate > SATURATED
            count["rates"][f"{min(int(rate * 10), 9) / 10:.1f}"] += 1
    count["total"]["voltages"] = sum(v.size for n, v in result.values.items() if n[:2] == "v(")
    return found


def run_chunk(seed: int, first: int, last: int, with_lava: int, out: Path) -> Tally:
    """Run graphs first..last-1, the numbers below ``with_lava`` in Lava too."""
    torch.set_num_threads(1)
    cases = [draw(seed, number) for number in range(first, last)]
    expected = [run_case(c, "reference") for c in cases]
    total = sum((tally(c, r) for c, r in zip(cases, expected, strict=True)), Tally())
    checks = []
    for case, result in zip(cases, expected, strict=True):
        with forced(case.way):
            checks.append((case, result, "fast", run_case(case, "fast", batch=case.batch)))
    chosen = [i for i, c in enumerate(cases) if c.number < with_lava]
    if chosen:
        pair = [cases[i] for i in chosen], [expected[i] for i in chosen]
        checks += [
            (c, r, "lava", found) for c, r, found in zip(*pair, run_lava(*pair), strict=True)
        ]
    failures = []
    for case, reference, backend, found in checks:
        total.counts["total"][f"compared with {backend}"] += 1
        if text := difference(case, reference, found, backend):
            failures.append(keep(case, backend, text, out))
    return replace(total, failures=tuple(failures))


# --- many graphs -------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class State:
    """Where a run stands: graphs done, seconds of all calls together, what was counted."""

    seed: int
    lava: int
    done: int = 0
    seconds: float = 0.0
    tally: Tally = field(default_factory=Tally)

    def save(self, path: Path) -> None:
        held = {"seed": self.seed, "lava": self.lava, "done": self.done, "seconds": self.seconds}
        held |= {"counts": self.tally.counts, "failures": self.tally.failures}
        with written_whole(path) as temporary:
            temporary.write_text(json.dumps(held, indent=1), encoding="utf-8")


def load_state(path: Path, seed: int, with_lava: int) -> State:
    """Return the state to go on from; ConfigError where it is of another run."""
    if not path.exists():
        return State(seed, with_lava)
    held = json.loads(path.read_text(encoding="utf-8"))
    if (held["seed"], held["lava"]) != (seed, with_lava):
        raise ConfigError(
            f"{path} is of --seed {held['seed']} --lava {held['lava']}, asked for are --seed "
            f"{seed} --lava {with_lava}; give another --out"
        )
    counts = {name: Counter(held["counts"][name]) for name in SECTIONS}
    found = Tally(counts, tuple((name, text) for name, text in held["failures"]))
    return State(seed, with_lava, held["done"], held["seconds"], found)


def chunks(options: argparse.Namespace, first: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of the chunks still to do, none after the time is up."""
    end = time.monotonic() + 60 * options.minutes if options.minutes else float("inf")
    while first < options.graphs and time.monotonic() < end:
        last = min(first + CHUNK, options.graphs)
        yield first, last
        first = last


def results(options: argparse.Namespace, first: int) -> Iterator[tuple[int, Tally]]:
    """Yield (graphs done, tally) of every chunk in order, from ``jobs`` processes."""
    todo = chunks(options, first)

    def work(span: tuple[int, int]) -> tuple:
        return options.seed, *span, options.lava, options.out

    if options.jobs == 1:
        for span in todo:
            yield span[1], run_chunk(*work(span))
        return
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        waiting = deque(
            (span[1], pool.submit(run_chunk, *work(span))) for span in islice(todo, options.jobs)
        )
        while waiting:
            last, future = waiting.popleft()
            yield last, future.result()
            if span := next(todo, None):
                waiting.append((span[1], pool.submit(run_chunk, *work(span))))


def fuzz(options: argparse.Namespace) -> State:
    """Go on from the state in ``out`` to the last graph or the end of the time."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "state.json"
    state = load_state(path, options.seed, options.lava)
    before, start = state.seconds, time.monotonic()
    for done, found in results(options, state.done):
        seconds = before + time.monotonic() - start
        state = replace(state, done=done, seconds=seconds, tally=state.tally + found)
        state.save(path)
        total = state.tally.counts["total"]
        print(
            f"{done}/{options.graphs} graphs, {total['compared with lava']} with lava, "
            f"{total['refused']} refused, {len(state.tally.failures)} differences, {seconds:.0f} s",
            flush=True,
        )
    return state


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=10_000)
    parser.add_argument("--lava", type=int, default=500, help="how many of them in Lava too")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--minutes", type=float, help="stop after the chunk that passes them")
    options = parser.parse_args(arguments)
    try:
        state = fuzz(options)
    except ConfigError as error:
        parser.error(str(error))
    found = summary(state)
    for name, text in (("json", json.dumps(found, indent=1) + "\n"), ("md", markdown(found))):
        (options.out / f"summary.{name}").write_text(text, encoding="utf-8")
    print(f"{len(found['differences'])} differences; {options.out / 'summary.md'}")
    return 1 if found["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
