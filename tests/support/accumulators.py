"""What the accumulators of a run really held, to compare with their static bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuroav import integer as ig
from neuroav.hardware import load_profile
from neuroav.sim import reference

ARITH = load_profile("loihi2").arithmetic


def port_sums(pop, outputs, steps):
    """Return the synaptic sums at every port, int64 (steps, *shape) each."""
    return [
        np.stack([reference.port_sum(pop, port, outputs, t) for t in range(steps)])
        for port in range(pop.ports)
    ]


def observed(deployment, inputs, arith=ARITH):
    """Return the (low, high) of every accumulator over all samples, from the reference's own steps.

    Keys: (population, index of the accumulator in its bounds). Voltages are those before the reset.
    """
    graph, spans = deployment.integer, {}

    def note(name, index, value):
        low, high = spans.get((name, index), (0, 0))
        spans[name, index] = (min(low, int(value.min())), max(high, int(value.max())))

    for sample in range(len(next(iter(inputs.values())))):
        frames = {n: v[sample].astype(np.int64) for n, v in inputs.items()}
        outputs, _ = reference.run_sample(graph, arith, frames)
        for name in graph.order:
            pop = graph.populations[name]
            if isinstance(pop, ig.ATTENTION_CLASSES):
                note(name, 0, outputs[name])
                continue
            if isinstance(pop, (ig.IntProduct, ig.IntTimeSum)):
                whole = replace(pop, shift=0)  # what the register holds before the shift
                wide = replace(arith, payload_bits=40)
                sums = port_sums(pop, outputs, graph.steps)
                note(name, 0, reference.all_steps(name, whole, sums, wide)[0])
                if isinstance(pop, ig.IntProduct) and pop.shift:
                    note(name, 1, outputs[name])
                continue
            state = reference.initial_state(pop)
            for t in range(graph.steps):
                a = reference.port_sum(pop, 0, outputs, t)
                if isinstance(pop, ig.IntLif):
                    high = replace(pop, threshold=np.full_like(pop.threshold, 2**40))
                    (u, v), _ = reference.neuron_step(name, high, state, a, arith)
                    note(name, 0, u)
                    note(name, 1, v)
                if isinstance(pop, (ig.IntOr, ig.IntAnd, ig.IntSum, ig.IntWinner)):
                    note(name, 0, a)
                if not isinstance(pop, ig.IntInput):
                    state, out = reference.neuron_step(name, pop, state, a, arith)
                    if isinstance(pop, ig.IntReadout):
                        note(name, int(pop.leaky), out)
                        if pop.leaky:
                            note(name, 0, state[0])
    return spans
