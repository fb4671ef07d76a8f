"""Widths of single layers: what each costs alone, and fewer bits within a budget.

The network is traced and lowered once, its ranges are measured once; every trial quantizes that
graph with other widths, as ``compile_module`` would, and runs it batched by ``fast``. Memory is
what the target stores for weights (``mapping.needs``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, DataError, UnsupportedModule
from neuroav.graph import SpikingGraph
from neuroav.hardware import Profile
from neuroav.integer import IntGraph
from neuroav.mapping.needs import Costs, layer_of
from neuroav.quantization import Calibration, Options
from neuroav.sim import fast
from neuroav_export.passes.limit_range import limit_range
from neuroav_export.passes.prove_range import prove_range
from neuroav_export.passes.quantize import quantize
from neuroav_export.pipeline import checked_target, finish, lowered_graph, real_valued, time_first
from neuroav_export.prepared import Prepared

WIDTHS = (8, 6, 5, 4, 3, 2)
CHUNK = 64  # samples of the float network at a time
Sample = Mapping[str, np.ndarray]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Trial:
    """One deployment on the held-out samples.

    agreement: share answered as the float network does; accuracy: share answered right, None
    without labels. memory_bits: of all weights as the target stores them.
    """

    agreement: float
    accuracy: float | None
    memory_bits: int

    @property
    def score(self) -> float:
        """What a budget is spent from: accuracy, or agreement without labels."""
        return self.agreement if self.accuracy is None else self.accuracy


@dataclass(frozen=True)
class Row:
    """A deployment in which one layer alone has another width."""

    layer: str
    bits: int
    found: Trial


@dataclass(frozen=True)
class Sensitivity:
    """What single layers cost. base: all layers at the widest; float_accuracy: of the network as
    trained, None without labels; rows: by layer, then width."""

    bits: int
    float_accuracy: float | None
    base: Trial
    rows: tuple[Row, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with weights, in the order of the network."""
        return tuple(dict.fromkeys(row.layer for row in self.rows))


@dataclass(frozen=True)
class Step:
    """One decision of ``choose_bits``. moves: (layer, bits before, bits after); found: the
    deployment with them; accepted: whether it is within the budget, else they were undone."""

    moves: tuple[tuple[str, int, int], ...]
    found: Trial
    accepted: bool


@dataclass(frozen=True)
class BitChoice:
    """Widths within a budget. bits: of layers that ``layer_bits`` does not name."""

    bits: int
    layer_bits: Mapping[str, int]
    budget: float
    before: Trial
    after: Trial
    steps: tuple[Step, ...]
    sensitivity: Sensitivity

    def table(self) -> str:
        """Return the decisions as a Markdown table."""
        lines = [
            "| lowered | agreement | accuracy | memory, kbit | kept |",
            "|---|---|---|---|---|",
        ]
        for step in self.steps:
            moves = ", ".join(f"{n} {a} to {b}" for n, a, b in step.moves)
            right = "" if step.found.accuracy is None else f"{step.found.accuracy:.4f}"
            lines.append(
                f"| {moves} | {step.found.agreement:.4f} | {right} "
                f"| {step.found.memory_bits / 1000:.1f} | {'yes' if step.accepted else 'no'} |"
            )
        return "\n".join(lines)


class Trials:
    """A network lowered once, to be quantized and run many times."""

    def __init__(
        self,
        module: nn.Module,
        sample: Sample,
        labels: np.ndarray | Sequence[int] | None = None,
        *,
        held_out: Sample | None = None,
        target: str = "loihi2",
        calibration: Calibration = "mse",
        per_channel: bool = False,
        max_count: Mapping[str, int] | None = None,
        static: Collection[str] = (),
    ) -> None:
        if isinstance(module, Prepared):
            raise UnsupportedModule(
                "the network is prepared, its widths are chosen; choose those of the float network "
                "and give them to prepare(..., layer_bits=...)"
            )
        self.options = Options(calibration=calibration, per_channel=per_channel)
        self.profile: Profile = checked_target(target, self.options)
        _, lowered = lowered_graph(module, sample, max_count, static)
        self.fixed = [n for n in lowered.order if _least(lowered, n) is not None]
        tensors = {n: torch.from_numpy(v.astype(np.float64)) for n, v in time_first(sample).items()}
        self.graph = limit_range(lowered, tensors, self.profile.arithmetic)
        self.held_out = sample if held_out is None else held_out
        self.answers = float_answers(module, {n: self.held_out[n] for n in sample})
        self.labels = None if labels is None else np.asarray(labels)
        if self.labels is not None and self.labels.shape != self.answers.shape:
            raise DataError(
                f"labels: shape is {self.labels.shape}, there are {len(self.answers)} samples"
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers whose weights are stored, in the order of the network."""
        return tuple(n for n in self.graph.order if hasattr(self.graph.nodes[n], "weight"))

    @property
    def float_accuracy(self) -> float | None:
        """Accuracy of the network as trained, None without labels."""
        return None if self.labels is None else float((self.answers == self.labels).mean())

    def deployment(self, bits: int, layer_bits: Mapping[str, int]) -> Deployment:
        """Return what ``compile_module`` gives for these widths."""
        arith = self.profile.arithmetic
        options = replace(self.options, bits=bits, layer_bits=dict(layer_bits)).check(arith)
        graph, found = prove_range(
            self.graph, self.fixed, arith, lambda g: quantize(g, arith, options)
        )
        return finish(graph, found, self.profile)

    def run(self, bits: int, layer_bits: Mapping[str, int]) -> Trial:
        """Return how the deployment with these widths answers the held-out samples."""
        deployment = self.deployment(bits, layer_bits)
        output = deployment.integer.output
        traces = fast.run(deployment, self.held_out)
        found = np.concatenate([t.outputs[output][:, -1].argmax(axis=1) for t in traces])
        right = None if self.labels is None else float((found == self.labels).mean())
        memory = synapse_bits(deployment.integer, self.profile)
        return Trial(float((found == self.answers).mean()), right, memory)


def _least(graph: SpikingGraph, name: str) -> np.ndarray | None:
    return getattr(graph.nodes[name], "least_unit", None)


def float_answers(module: nn.Module, inputs: Sample) -> np.ndarray:
    """Return the classes that the float network answers, int64 (samples,)."""
    twin, whole = real_valued(module), time_first(inputs)
    total, found = next(iter(whole.values())).shape[1], []
    with torch.no_grad():
        for first in range(0, total, CHUNK):
            part = [
                torch.from_numpy(v[:, first : first + CHUNK].astype(np.float64))
                for v in whole.values()
            ]
            found.append(twin(*part).argmax(1).numpy())
    return np.concatenate(found)


def synapse_bits(graph: IntGraph, profile: Profile) -> int:
    """Return the bits that a target stores for all weights, shared ones once where it shares."""
    costs, total = Costs.of(profile), 0.0
    for name in graph.order:
        if name in graph.inputs:
            continue
        layer = layer_of(graph, name, costs)
        box = np.array([[(0, n) for n in layer.shape]], np.int64)
        total += sum(float(layer.weights(box, shared=shared)[0]) for shared in (False, True))
    return round(8 * total)


def _widths(bits: Sequence[int]) -> tuple[int, ...]:
    found = tuple(sorted(set(bits), reverse=True))
    if len(found) < 2:
        raise ConfigError(f"bits are {tuple(bits)}, needs two widths and more to choose from")
    return found


def _sensitivity(trials: Trials, bits: Sequence[int], progress: Progress | None) -> Sensitivity:
    widest, *fewer = _widths(bits)
    base = trials.run(widest, {})
    pairs = [(layer, width) for layer in trials.layers for width in fewer]
    rows = []
    for done, (layer, width) in enumerate(pairs):
        rows.append(Row(layer, width, trials.run(widest, {layer: width})))
        if progress:
            progress("single layers", done + 1, len(pairs))
    return Sensitivity(widest, trials.float_accuracy, base, tuple(rows))


def sensitivity(
    module: nn.Module,
    sample: Sample,
    labels: np.ndarray | Sequence[int] | None = None,
    bits: Sequence[int] = WIDTHS,
    *,
    held_out: Sample | None = None,
    target: str = "loihi2",
    calibration: Calibration = "mse",
    per_channel: bool = False,
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
    progress: Progress | None = None,
) -> Sensitivity:
    """Return what the deployment loses where one layer alone has fewer bits.

    sample, target, calibration, per_channel, max_count, static: as for ``compile_module``.
    held_out: event counts that answers are compared on, ``sample`` by default; labels: their
    classes. bits: the first, largest, is the width of all other layers.
    """
    trials = Trials(
        module, sample, labels, held_out=held_out, target=target, calibration=calibration,
        per_channel=per_channel, max_count=max_count, static=static,
    )  # fmt: skip
    return _sensitivity(trials, bits, progress)


def choose_bits(
    module: nn.Module,
    sample: Sample,
    labels: np.ndarray | Sequence[int] | None = None,
    bits: Sequence[int] = WIDTHS,
    *,
    budget: float = 0.01,
    held_out: Sample | None = None,
    target: str = "loihi2",
    calibration: Calibration = "mse",
    per_channel: bool = False,
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
    progress: Progress | None = None,
) -> BitChoice:
    """Return widths of single layers that together lose at most ``budget``.

    budget: share of the held-out samples, of accuracy where there are labels, of agreement with the
    float network otherwise, below the deployment with all layers at the largest of ``bits``. The
    rest as for ``sensitivity``. Greedy: the layer whose next width loses least agreement alone per
    bit of memory saved goes first. Twice as many moves are tried at a time while they stay within
    the budget, half as many where they do not; a layer whose single move does not keeps its width.
    """
    if not 0 <= budget < 1:
        raise ConfigError(f"the accuracy budget is {budget}, a share from 0 to below 1")
    trials = Trials(
        module, sample, labels, held_out=held_out, target=target, calibration=calibration,
        per_channel=per_channel, max_count=max_count, static=static,
    )  # fmt: skip
    alone = _sensitivity(trials, bits, progress)
    search = _Search(trials, alone, _widths(bits), budget, progress)
    after = search.run()
    chosen = {n: b for n, b in search.widths.items() if b != alone.bits}
    return BitChoice(alone.bits, chosen, budget, alone.base, after, tuple(search.steps), alone)


class _Search:
    """The state of the greedy search: widths so far, layers that keep theirs, decisions."""

    def __init__(
        self,
        trials: Trials,
        alone: Sensitivity,
        bits: tuple[int, ...],
        budget: float,
        progress: Progress | None,
    ) -> None:
        self.trials, self.alone, self.bits, self.progress = trials, alone, bits, progress
        self.floor = alone.base.score - budget - 1e-12  # shares of samples are not whole floats
        self.widths = dict.fromkeys(alone.layers, bits[0])
        self.kept: set[str] = set()
        self.steps: list[Step] = []
        self.single = {(r.layer, r.bits): r.found for r in alone.rows}
        self.single |= {(n, bits[0]): alone.base for n in alone.layers}

    def run(self) -> Trial:
        """Return the last deployment within the budget."""
        best, count = self.alone.base, 1
        while moves := self._next(count):
            widths = self.widths | {layer: after for layer, _, after in moves}
            found = self.trials.run(self.bits[0], widths)
            accepted = found.score >= self.floor
            self.steps.append(Step(tuple(moves), found, accepted))
            if accepted:
                self.widths, best, count = widths, found, 2 * count
            elif count > 1:
                count = max(1, len(moves) // 2)
            else:
                self.kept.add(moves[0][0])
            if self.progress:
                least = self.bits.index(min(self.bits))
                done = sum(least if n in self.kept else self.bits.index(b)
                           for n, b in self.widths.items())  # fmt: skip
                self.progress("together", done, least * len(self.widths))
        return best

    def _next(self, count: int) -> list[tuple[str, int, int]]:
        """Return the next moves, one per layer; each the cheapest that is left."""
        found = []
        for layer, width in self.widths.items():
            lower = self.bits[self.bits.index(width) + 1 :]
            if layer in self.kept or not lower:
                continue
            now, then = self.single[layer, width], self.single[layer, lower[0]]
            saved = now.memory_bits - then.memory_bits
            if saved > 0:
                lost = max(0.0, now.agreement - then.agreement)
                found.append((lost / saved, -saved, (layer, width, lower[0])))
        return [move for _, _, move in sorted(found)[:count]]
