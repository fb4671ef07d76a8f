"""Where it changed, population by population, and the layers ranked by what they lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.explain.recompute import Keeps, accumulated, readout_keeps, real_sums
from neuroav.explain.rederive import Derived, derive, synapses
from neuroav.explain.stages import Chain, Unfolded, Values
from neuroav.explain.swaps import first_difference, recovered, sides
from neuroav.explain.twin import Twin, agreement, is_spiking

Messages = Mapping[str, np.ndarray]
QAT = "training with the deployed integers (quant.aware=true)"
FINER = "a smaller unit (--calibration mse)"


def explain_layers(
    deployment: Deployment,
    fed: Messages,
    outputs: Mapping[str, Messages],
    unfolded: Unfolded | None = None,
) -> dict[str, Any]:
    """Return the table of stages, and the layers ranked by what they lose themselves.

    fed: what was fed, by the names of ``Deployment.fed``. outputs: by executor, the first is the
    integer network. unfolded: the network as trained, on the same samples. Keys as
    docs/exactness.md lists for ``explain``.
    """
    first, *others = outputs
    messages = outputs[first]
    chain = Chain(deployment, messages, fed, unfolded)
    rows, alone = [], []
    for name in deployment.integer.order:
        if _is_fed(deployment, name):
            continue
        row: dict[str, Any] = {
            "name": name,
            "kind": type(deployment.integer.populations[name]).__name__,
            "spiking": is_spiking(deployment.integer.populations[name]),
            "float_agreement": None,
            "own_agreement": None,
        }
        values = chain.values(name)
        row["stages"] = chain.row(name, values)
        if values.own_folded is not None:
            row |= _against_float(deployment, name, chain.twin, values)
        else:
            alone.append(name)
        row["executors"] = {b: float((outputs[b][name] == messages[name]).mean()) for b in others}
        rows.append(row)
    lost = [r for r in rows if r["own_agreement"] is not None and r["own_agreement"] < 1]
    # half a unit of a graded value is no measure beside a spike: those come after
    lost.sort(key=lambda r: (not r["spiking"], r["own_agreement"]))
    return {
        "stages": chain.summary({r["name"]: r for r in rows}),
        "layers": rows,
        "ranked": [r["name"] for r in lost],
        "without_twin": alone,
    }


def _is_fed(deployment: Deployment, name: str) -> bool:
    """Return whether a population is an input that nothing computes."""
    pop = deployment.integer.populations[name]
    return isinstance(pop, ig.IntInput) and name not in deployment.host


def _against_float(deployment: Deployment, name: str, twin: Twin, values: Values) -> dict[str, Any]:
    """Return the part of a row that compares a population with its node of the twin."""
    graph = deployment.integer
    pop, scale = graph.populations[name], graph.scales[name]
    deployed, own, whole = values.integer, values.own_folded, values.folded
    assert own is not None
    assert whole is not None
    agree = agreement(deployed, own, scale, is_spiking(pop))
    row: dict[str, Any] = {
        "float_agreement": float(agreement(deployed, whole, scale, is_spiking(pop)).mean()),
        "own_agreement": float(agree.mean()),
        "own_lost": int((~agree).sum()),
    }
    if not is_spiking(pop):
        last = deployed[:, -own.shape[1] :]
        row["mean_difference"] = float(np.abs(last - own).mean() * scale[1] / scale[0])
    if agree.all():
        return row
    place = first_place(~agree)
    step = place[1] + deployed.shape[1] - agree.shape[1]
    row["first"] = {"sample": place[0], "step": step, "index": list(place[2])}
    derived = derive(deployment, name)
    if derived:
        row["settings"] = asdict(derived.settings) if derived.settings else None
    if derived and isinstance(pop, ig.IntLif):
        both = sides(deployment, name, twin, derived, twin.messages)
        row["first"] |= first_difference(both, place, bool(own[(*place[:2], *place[2])]))
        row["recovers"] = recovered(both, own, agree)
    elif derived and isinstance(pop, ig.IntReadout):
        row |= _readout(deployment, name, twin, derived, own, place)
    else:
        row["first"] |= _values(deployed, own, place, scale)
        if isinstance(pop, ig.IntTimeSum):  # sums have neither bias nor threshold
            row["first"]["cause"] = "rounding of weight"
        return row
    most = max(row["recovers"], key=row["recovers"].__getitem__)
    helps = row["recovers"][most] > 0
    row["dominant"] = most if helps else None  # None: it takes more than one at a time
    row["advice"] = advice(deployment, pop, derived, most) if helps else None
    return row


def first_place(different: np.ndarray) -> tuple[int, int, tuple[int, ...]]:
    """Return (sample, step, index) of the first True of (samples, steps, *shape)."""
    sample, step, *index = (int(i) for i in np.argwhere(different)[0])
    return sample, step, tuple(index)


def _values(deployed, own, place, scale: tuple[int, int]) -> dict[str, Any]:
    sample, step, index = place
    at = (sample, step - own.shape[1], *index)  # from the end: own may have the last step alone
    values = float(deployed[at]), float(own[at])
    unit = scale[0] / scale[1]
    return {
        "deployed": values[0],
        "float": values[1],
        "difference": {"message": (values[1] - values[0]) / unit},
        "cause": None,
    }


def _readout(
    deployment: Deployment, name: str, twin: Twin, derived: Derived, own, place
) -> dict[str, Any]:
    """Return how class scores come nearer with one part of the float's, and the first's cause.

    recovers: share of the mean |difference| that goes with the swap.
    """
    graph = deployment.integer
    scale = graph.scales[name][0] / graph.scales[name][1]
    final, wanted = twin.deployed(name)[:, -1] / scale, own[:, -1] / scale
    left = {k: np.abs(v - wanted) for k, v in _swapped(deployment, name, twin, derived).items()}
    start = np.abs(final - wanted).mean()
    sample, _, index = place
    cause = min(left, key=lambda k: left[k][(sample, *index)])
    words = cause if cause == "truncation" else f"rounding of {cause}"
    first = {"sample": sample, "step": graph.steps - 1, "index": list(index)}
    first |= _values(twin.deployed(name), own, place, graph.scales[name])
    return {
        "first": first | {"cause": words},
        "recovers": {k: float(1 - v.mean() / start) for k, v in left.items()},
    }


def _swapped(
    deployment: Deployment, name: str, twin: Twin, derived: Derived
) -> dict[str, np.ndarray]:
    """Return by part the deployed scores with that part from the twin, in integers' units.

    Leaks, of a leaky readout alone: their rounding, and that what they leave is cut.
    """
    graph, arith = deployment.integer, deployment.profile.arithmetic
    pop, node, found = (
        graph.populations[name],
        deployment.real.nodes[name],
        synapses(deployment, name),
    )
    assert isinstance(pop, ig.IntReadout)
    assert isinstance(node, (rn.Readout, rn.Li))
    assert found is not None
    pairs = zip(pop.projections, found.terms, strict=True)
    real = replace(
        pop,
        projections=tuple(replace(p, weight=t.weight / derived.unit) for p, t in pairs),  # type: ignore[call-arg]
        bias=found.bias / derived.unit * (1 << pop.input_shift),
    )
    keeps = readout_keeps(pop, arith)

    def scores(weighted: ig.IntReadout, biased: ig.IntReadout, kept: Keeps) -> np.ndarray:
        sums = real_sums(graph, name, weighted, twin.messages)[0]
        return accumulated(biased, sums, kept)[:, -1]

    base = scores(pop, pop, keeps)
    swapped = {"weight": scores(real, pop, keeps), "bias": scores(pop, real, keeps)}
    if pop.leaky and node.tau_mem_s is not None:
        dt, syn = deployment.real.dt_s, node.tau_syn_s
        kept = 0.0 if syn is None else 1 - dt / syn, 1 - dt / node.tau_mem_s
        swapped["decay"] = scores(pop, pop, kept)
    final = twin.messages[name][:, -1]
    result = {part: final + value - base for part, value in swapped.items()}
    return result | ({"truncation": base} if pop.leaky else {})


def advice(deployment: Deployment, pop: ig.Population, derived: Derived, dominant: str) -> str:
    """Return the setting that would bring back most of what the dominant rounding takes."""
    arith, rules = deployment.profile.arithmetic, deployment.profile.rules
    bits = [p.weight_bits for p in pop.projections if hasattr(p, "weight_bits")]
    channels = isinstance(pop, ig.IntLif) and derived.unit.size == 1 and bool(bits)
    channels = channels and pop.shape[0] > 1 and rules.thresholds_per_neuron
    finest = derived.settings is not None and derived.settings.calibration == "mse"
    if dominant == "decay":
        return "a membrane time constant whose dt / tau_mem is a multiple of 1/4096, or " + QAT
    if dominant == "weight" and bits and min(bits) < arith.weight_bits:
        return f"more bits (--bits {arith.weight_bits}; these weights have {min(bits)})"
    if channels:
        return "scales per output channel (--per-channel)"
    if dominant in ("weight", "threshold", "truncation") and bits and not finest:
        return f"{FINER}, or {QAT}"
    return QAT
