"""The same events priced by others, the same network elsewhere, and where the two meet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from neuroav.costs import energy as en
from neuroav.costs.baselines import baselines
from neuroav.costs.breakeven import break_even, interval
from neuroav.costs.coefficients import event_totals, side_by_side
from neuroav.report.measure import Measured

GROWING = ("synop_conv", "synop_dense", "synop_sparse", "spike_out", "message_out", "hop_x",
           "hop_y", "chip_message")  # fmt: skip
CONSTANT = ("neuron_update", "core_step", "static")
AGAINST = ("int8_ann", "int8_ann_one_pass", "int8_ann_7nm", "int8_ann_one_pass_7nm")
BATCH = 64


def baseline_rows(run: Measured) -> dict[str, Any]:
    """Return the network on conventional hardware, by kind of execution and technology."""
    return baselines(run.deployment, run.outcome.counts, batch=BATCH)


def published_sets(run: Measured) -> list[dict[str, Any]]:
    """Return the counts of the run under every published set of coefficients."""
    graph = run.deployment.integer
    synops, updates, spikes = event_totals(run.outcome.counts, graph.inputs)
    return side_by_side(
        synops, updates, spikes, synapse_steps=run.deployment.synapses * graph.steps
    )


def break_evens(run: Measured, energy: en.Energy, rows: dict[str, Any]) -> dict[str, Any]:
    """Return, for every INT8 baseline, from which spike rate and how many steps on it is cheaper.

    Memory is included on both sides. What grows with the rate are synaptic operations, spikes,
    messages and hops; neuron updates, active cores and static energy do not.
    """
    graph, counts = run.deployment.integer, run.outcome.counts
    spikes = sum(float(counts.spikes[n].mean()) for n in graph.order if n not in graph.inputs)
    rate = spikes / (graph.steps * run.deployment.neurons)
    return {
        key: break_even(
            _sum(energy, GROWING),
            _sum(energy, CONSTANT),
            interval(rows[key]["total"]),
            rate=rate,
            steps=graph.steps,
            baseline_per_step="one_pass" not in key,
        )
        for key in AGAINST
    }


def _sum(energy: en.Energy, kinds: Iterable[str]) -> tuple[float, float, float] | None:
    """Return (low, value, high) of some terms together in pJ, None if one is unknown."""
    found = en.total((energy.terms[kind].energy for kind in kinds), "")
    return interval(found.as_dict())
