"""SANA-FE's architecture file from a profile: the mesh of a placement, and what events cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

import numpy as np

from neuroav.errors import ProfileError
from neuroav.hardware import Profile, Quantity
from neuroav.sim.sanafe.network import UNIT_NEURONS, Network

ENERGY_UNITS = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6}
TIME_UNITS = {"ns": 1.0, "us": 1e3}
LINK_BUFFER = 16  # messages; only the detailed timing model reads it. SANA-FE's arch/loihi.yaml
KINDS = ("conv", "dense", "sparse")


@dataclass(frozen=True)
class Coefficients:
    """Energy per event in pJ, None where unknown.

    synop_*: of a synapse that a message meets. neuron_update: of a neuron in a step, SANA-FE's
    access and update together. spike_out: of a message that a neuron sends. message_out: of a
    message and core that it goes to. hop_x, hop_y: of a message from router to router.
    """

    synop_conv: float | None
    synop_dense: float | None
    synop_sparse: float | None
    neuron_update: float | None
    spike_out: float | None
    message_out: float | None
    hop_x: float | None
    hop_y: float | None

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the coefficients that are not known."""
        return tuple(key for key, value in asdict(self).items() if value is None)


@dataclass(frozen=True)
class Latencies:
    """Time per event in ns, None where unknown; barrier: per step."""

    synop: float | None
    neuron_update: float | None
    spike_out: float | None
    message_in: float | None
    barrier: float | None


def coefficients(profile: Profile) -> Coefficients:
    """Return the energy per event of a profile. ProfileError for a unit that is no energy."""
    names = Coefficients.__dataclass_fields__
    return Coefficients(
        **{n: _value(f"energy.{n}", getattr(profile.energy, n), ENERGY_UNITS) for n in names}
    )


def latencies(profile: Profile) -> Latencies:
    """Return the time per event of a profile. ProfileError for a unit that is no time."""
    names = Latencies.__dataclass_fields__
    return Latencies(
        **{n: _value(f"time.{n}", getattr(profile.time, n), TIME_UNITS) for n in names}
    )


def _value(key: str, quantity: Quantity, units: Mapping[str, float]) -> float | None:
    if quantity.value is None:
        return None
    if quantity.unit not in units:
        raise ProfileError(f"{key} is in {quantity.unit}, allowed are {', '.join(units)}")
    return quantity.value * units[quantity.unit]


def architecture(net: Network, energy: Coefficients, time: Latencies, name: str) -> str:
    """Return the text of the architecture file for a network.

    What is unknown is written as 0, and the head of the file names it. Tiles that hold nothing have
    one idle core, so that a large board stays small.
    """
    filled = np.zeros((net.columns * net.rows, net.slots + 1), np.int64)
    for group in net.groups.values():
        np.add.at(filled, (group.tile, group.core), 1)
    core = _core(f"core[0..{net.slots - 1}]", int(filled[:, :-1].max()), energy, time, costs=True)
    host = _core("host[0..0]", int(filled[:, -1].max()), energy, time, costs=False)
    tiles = []
    used = [bool(row.any()) for row in filled]
    for busy, run in groupby(range(len(used)), used.__getitem__):
        first, *others = run
        name_of_run = f"tile[{first}..{others[-1] if others else first}]"
        cores = [core, host] if busy else [_idle(time)]
        tiles.append({"name": name_of_run, "attributes": _hops(energy), "core": cores})
    mesh = {"topology": "mesh", "width": net.columns, "height": net.rows,
            "link_buffer_size": LINK_BUFFER, "sync_model": "fixed",
            "latency_sync": _seconds(time.barrier)}  # fmt: skip
    body = {"architecture": {"name": name, "attributes": mesh, "tile": tiles}}
    return "\n".join([*_head(energy, time), *_lines(body)]) + "\n"


def _head(energy: Coefficients, time: Latencies) -> Iterator[str]:
    yield "# Energies in J per event, times in s; tile number = column * rows + row."
    unknown = [*(f"energy of {key}" for key in energy.unknown),
               *(f"time of {key}" for key, value in asdict(time).items() if value is None),
               "time of a hop", "time to send a message"]  # fmt: skip
    yield "# Not known for this target, and 0 here: " + ", ".join(unknown) + "."


# --- parts of the file -----------------------------------------------------------------------
def _core(
    name: str, neurons: int, energy: Coefficients, time: Latencies, *, costs: bool
) -> dict[str, Any]:
    """Return a core for so many neurons. costs: False for the host's, which are free."""
    units = f"[0..{max(-(-neurons // UNIT_NEURONS), 1) - 1}]"
    soma = [_soma(f"neuron{units}", energy, time)] if costs else []
    kinds = [_synapse(kind, getattr(energy, f"synop_{kind}"), time) for kind in KINDS]
    return {
        "name": name,
        "attributes": {"buffer_position": "soma", "buffer_inside_unit": False,
                       "max_neurons_supported": max(neurons, 1)},
        "axon_in": [_unit("in", energy_message_in=0.0,
                          latency_message_in=_seconds(time.message_in))],
        "synapse": kinds,
        "dendrite": [_unit(f"sum{units}", model="accumulator", energy_update=0.0,
                           latency_update=0.0)],
        "soma": [*soma, _soma(f"silent{units}", None, None)],
        "axon_out": [_unit("out", energy_message_out=_joules(energy.message_out if costs else 0.0),
                           latency_message_out=0.0)],
    }  # fmt: skip


def _idle(time: Latencies) -> dict[str, Any]:
    free = Coefficients(*[0.0] * len(Coefficients.__dataclass_fields__))
    core = _core("idle[0..0]", 0, free, time, costs=False)
    model = {k: v for k, v in core["soma"][0]["attributes"].items() if k != "model"}
    return core | {"soma": [_unit("nothing", model="input", **model)]}


def _soma(name: str, energy: Coefficients | None, time: Latencies | None) -> dict[str, Any]:
    """Return a soma; without costs where there are none given."""
    return _unit(
        name,
        model="leaky_integrate_fire",
        energy_access_neuron=0.0,
        energy_update_neuron=_joules(energy.neuron_update) if energy else 0.0,
        energy_spike_out=_joules(energy.spike_out) if energy else 0.0,
        latency_access_neuron=0.0,
        latency_update_neuron=_seconds(time.neuron_update) if time else 0.0,
        latency_spike_out=_seconds(time.spike_out) if time else 0.0,
    )


def _synapse(kind: str, energy_pj: float | None, time: Latencies) -> dict[str, Any]:
    return _unit(
        kind,
        model="current_based",
        energy_process_spike=_joules(energy_pj),
        latency_process_spike=_seconds(time.synop),
    )


def _hops(energy: Coefficients) -> dict[str, float]:
    found: dict[str, float] = {}
    for direction in ("north", "south", "east", "west"):
        cost = energy.hop_y if direction in ("north", "south") else energy.hop_x
        found |= {f"energy_{direction}_hop": _joules(cost), f"latency_{direction}_hop": 0.0}
    return found


def _unit(name: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "attributes": attributes}


def _joules(picojoules: float | None) -> float:
    return (picojoules or 0.0) * 1e-12


def _seconds(nanoseconds: float | None) -> float:
    return (nanoseconds or 0.0) * 1e-9


def _lines(value: dict[str, Any], depth: int = 0) -> Iterator[str]:
    """Yield a tree of dictionaries, lists of them and scalars as YAML."""
    for key, item in value.items():
        start = "  " * depth + f"{key}:"
        if isinstance(item, dict):
            yield start
            yield from _lines(item, depth + 1)
        elif isinstance(item, list):
            yield start
            for part in item:
                first, *rest = _lines(part, depth + 2)
                yield "  " * (depth + 1) + "- " + first.lstrip()
                yield from rest
        else:
            yield f"{start} {str(item).lower() if isinstance(item, bool) else item}"
