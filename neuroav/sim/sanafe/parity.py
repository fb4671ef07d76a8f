"""Our count of a recorded run in SANA-FE's terms, and both counts side by side.

What SANA-FE 2.2.9 charges, and what it is in our events. A run of S samples, one after the other
without a gap, is T = S * steps + (largest latency) chip steps.

    synapse   per (spike, synapse): each synapse that a message meets, by its kind. All synapses are
              there, also those from inputs and those onto the state of attentions.
    soma      per neuron and step: access, and update where the neuron is updated. All neurons are,
              in every step: T * neurons * neuron_update (access is 0). Per spike: spike_out.
    network   per (spike, core reached): message_out, also where the core is the sender's own. One
              message however many synapses it meets on the core. Per message: |x - x'| hop_x +
              |y - y'| hop_y between the routers. Messages of the host cost nothing.

Everything that a spike causes is charged in the step in which its neuron fires. Any message, also a
graded one, is one spike. The state neurons of attentions have no counterpart: their soma, and what
they send on inside their core, is on neither side. Energy of chip boundaries, of idle cores and of
the host has no counterpart in SANA-FE either.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.hardware import Profile
from neuroav.mapping.reach import reach
from neuroav.placement import Placement, placed
from neuroav.sim.sanafe.arch import Coefficients, coefficients
from neuroav.sim.sanafe.client import TIMEOUT_S, Replay, Timing, replay
from neuroav.sim.sanafe.folder import Written, write_folder
from neuroav.synapses import SYNOP_KIND, mute

TOLERANCE = 1e-9  # of an energy: both sides add the same numbers in another order
TERMS = {
    "synapse_pj": ("synop_conv", "synop_dense", "synop_sparse"),
    "soma_pj": ("neuron_update", "spike_out"),
    "network_pj": ("message_out", "hop_x", "hop_y"),
}
COUNTS = ("steps", "synops", "fires", "updates", "packets", "hops")


@dataclass(frozen=True)
class SanafeTerms:
    """Energies in pJ, None where a coefficient is unknown, and events of a whole run.

    steps: chip steps. synops: (message, synapse) pairs. fires: messages of neurons with a soma that
    costs. updates: (such a neuron, step) pairs. messages: (message, core reached) pairs, of neurons
    on cores. host_messages: the same of inputs. hops: of all messages, from router to router.
    """

    synapse_pj: float | None
    soma_pj: float | None
    network_pj: float | None
    steps: int
    synops: int
    fires: int
    updates: int
    messages: int
    host_messages: int
    hops: int

    @property
    def packets(self) -> int:
        """What SANA-FE counts as messages: those of neurons on cores and those of the host."""
        return self.messages + self.host_messages


def expected(
    graph: ig.IntGraph,
    placement: Placement,
    outputs: Mapping[str, np.ndarray],
    energy: Coefficients,
) -> SanafeTerms:
    """Return our own count of a recorded run, in SANA-FE's terms (see the module).

    outputs: by population, integers (samples, steps, *shape). Nothing here comes from SANA-FE or
    from what is written for it: synapses are counted from the weights' support, not unrolled.
    """
    quiet = mute(graph)
    sent = {n: (outputs[n] != 0).sum(axis=(0, 1), dtype=np.int64) for n in graph.order}
    sent = {n: np.zeros_like(v) if n in quiet else v for n, v in sent.items()}
    synops, reached = _meetings(graph, placement, sent)
    messages = host_messages = 0
    hops = np.zeros(2, np.int64)  # along columns, along rows
    for (source, core), there in reached.items():
        count = sent[source] * there
        if source in graph.inputs:
            host_messages += int(count.sum())
        else:
            messages += int(count.sum())
            hops += _hops(placement, source, core, count)
    counted = [
        n for n in placed(graph) if not isinstance(graph.populations[n], ig.ATTENTION_CLASSES)
    ]
    steps = len(outputs[graph.output]) * graph.steps + max(graph.latency.values())
    fires = sum(int(sent[n].sum()) for n in counted)
    updates = steps * sum(graph.populations[n].neurons for n in counted)
    return SanafeTerms(
        synapse_pj=_energy(energy, {f"synop_{kind}": n for kind, n in synops.items()}),
        soma_pj=_energy(energy, {"neuron_update": updates, "spike_out": fires}),
        network_pj=_energy(
            energy, {"message_out": messages, "hop_x": int(hops[0]), "hop_y": int(hops[1])}
        ),
        steps=steps,
        synops=sum(synops.values()),
        fires=fires,
        updates=updates,
        messages=messages,
        host_messages=host_messages,
        hops=int(hops.sum()),
    )


def _meetings(graph: ig.IntGraph, placement: Placement, sent: Mapping[str, np.ndarray]):
    """Return synaptic operations by kind, and by (source, core) which neurons reach the core."""
    synops = {"conv": 0, "dense": 0, "sparse": 0}
    reached: dict[tuple[str, int], np.ndarray] = {}
    for name in placed(graph):
        for projection in graph.populations[name].projections:
            for core, part in placement.of[name]:
                found = reach(graph, name, projection, part.box)
                met = sent[found.source][found.index] * found.fan
                synops[SYNOP_KIND[type(projection)]] += int(met.sum())
                there = reached.setdefault(
                    (found.source, core), np.zeros(sent[found.source].shape, bool)
                )
                there[found.index] |= found.fan > 0
    return synops, reached


def _hops(placement: Placement, source: str, core: int, count: np.ndarray) -> np.ndarray:
    """Return hops along columns and rows of messages to a core; count: of every source neuron."""
    found = np.zeros(2, np.int64)
    for sender, part in placement.of[source]:
        way = np.subtract(placement.position(sender), placement.position(core))
        found += int(count[part.index].sum()) * np.abs(way)
    return found


def _energy(energy: Coefficients, events: Mapping[str, int]) -> float | None:
    """Return the energy of events by coefficient; None where one that occurs is unknown."""
    total = 0.0
    for key, count in events.items():
        cost = getattr(energy, key)
        if cost is None and count:
            return None
        total += count * (cost or 0.0)
    return total


# --- both sides ------------------------------------------------------------------------------
def compare(
    deployment: Deployment,
    placement: Placement,
    outputs: Mapping[str, np.ndarray],
    *,
    costs: Profile | None = None,
    timing: Timing = "simple",
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Return our count and SANA-FE's of a recorded run on a placement, as plain JSON values.

    outputs: by population, integers (samples, steps, *shape). costs: whose prices both take, the
    deployment's profile by default. Keys: neuroav and sanafe, with energies in pJ and events;
    difference, relative, of the energies; equal, whether all events are equal and all energies
    within 1e-9; unknown, coefficients without a number, which leave their energy None; left_out,
    name -> what has no counterpart; step_ns, SANA-FE's own time of a step on the chip, mean and
    max; synapses, cores, timing, version. Raises as ``write_folder`` and ``replay``.
    """
    energy = coefficients(costs or deployment.profile)
    with tempfile.TemporaryDirectory(prefix="neuroav-sanafe-") as holder:
        folder = Path(holder) / "network"
        written = write_folder(deployment, placement, outputs, folder, costs=costs)
        found = replay(folder, timing=timing, timeout_s=timeout_s)
    ours = expected(deployment.integer, placement, outputs, energy)
    known = {key: getattr(ours, key) is not None for key in TERMS}
    mine = {key: getattr(ours, key) for key in (*TERMS, *COUNTS)}
    theirs = _theirs(found, written, known)
    difference = {key: _relative(mine[key], theirs[key]) if known[key] else None for key in TERMS}
    return {
        "equal": all(mine[key] == theirs[key] for key in COUNTS)
        and all(value is None or value <= TOLERANCE for value in difference.values()),
        "neuroav": mine,
        "sanafe": theirs,
        "difference": difference,
        "unknown": list(energy.unknown),
        "left_out": dict(written.left_out),
        "step_ns": {"mean": float(found.seconds.mean() * 1e9),
                    "max": float(found.seconds.max() * 1e9)},
        "synapses": written.synapses,
        "cores": len(placement.cores),
        "timing": found.timing,
        "version": found.version,
    }  # fmt: skip


def _theirs(found: Replay, written: Written, known: Mapping[str, bool]) -> dict[str, Any]:
    """Return what SANA-FE counted, without its silent neurons, which are no neurons of ours."""
    joules = {"synapse_pj": found.synapse_j, "soma_pj": found.soma_j, "network_pj": found.network_j}
    steps = len(found.seconds)
    return {
        **{key: float(v.sum() * 1e12) if known[key] else None for key, v in joules.items()},
        "steps": steps,
        "synops": int(found.synops.sum()),
        "fires": int(found.fired.sum()) - written.silent_spikes,
        "updates": int(found.updated.sum()) - steps * written.silent_neurons,
        "packets": int(found.packets.sum()),
        "hops": int(found.hops.sum()),
    }


def _relative(ours: float, theirs: float) -> float:
    return abs(theirs - ours) / max(abs(ours), abs(theirs)) if ours != theirs else 0.0
