"""Event counts x profile -> energy per sample.

Every number is an Estimate: value, low, high, unit, grade, source. The grade of a sum is the worst
it uses; its band adds all lows and all highs, as if every coefficient were off in the same
direction. What is unknown is None, never 0: a sum that would need it is refused, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from neuroav.counts import Counts
from neuroav.errors import StageError
from neuroav.hardware import GRADES, Profile, Quantity
from neuroav.loads import Loads

TO_PJ = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6}
PJ_PER_MW_S = 1e9
STATEMENT = "estimate, not measurement"

SYNOPS = ("synop_conv", "synop_dense", "synop_sparse")
SENT = ("message_out", "hop_x", "hop_y", "chip_message")  # known of a placed network only
DYNAMIC = (*SYNOPS, "neuron_update", "spike_out", *SENT, "core_step")
KINDS = (*DYNAMIC, "static", "host_io")
COUNTED_IN = {"core_step": "core steps", "static": "chip seconds"}  # all others in events

NOT_PLACED = "the network is not placed on cores"
NOT_MODELLED = {
    "message_out": "messages per destination core need a placement on cores",
    "hop_x": "hops need a placement on cores",
    "hop_y": "hops need a placement on cores",
    "chip_message": "messages between chips need a placement on cores",
    "core_step": "the number of active cores needs a placement",
    "static": "static energy is power times run time, and run time needs a placement",
    "host_io": "moving events to the chip and scores back is not published",
}
INCLUDED = "included in the figure of a synaptic operation"
NO_EVENT = "no such event"
HOST_LAYER = "what a multiplication costs depends on the host, which no profile describes"


# --- estimates -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Estimate:
    """A number with its band. value, low and high are None where unknown."""

    value: float | None
    low: float | None
    high: float | None
    unit: str
    grade: str
    source: str

    @property
    def band(self) -> tuple[float, float, float] | None:
        """(low, value, high), or None when unknown; an end that is not given is the value."""
        if self.value is None:
            return None
        low = self.value if self.low is None else self.low
        return low, self.value, self.value if self.high is None else self.high

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def unknown(unit: str, why: str) -> Estimate:
    """Return an Estimate that says why there is no number."""
    return Estimate(None, None, None, unit, "C", why)


def nothing(why: str) -> Estimate:
    """Return 0 pJ, and why it is none."""
    return Estimate(0.0, 0.0, 0.0, "pJ", GRADES[0], why)


def priced(count: float, quantity: Quantity) -> Estimate:
    """Return ``count`` events at the price of ``quantity``, in pJ."""
    band = quantity.band
    if band is None:
        return unknown("pJ", quantity.source)
    low, value, high = (count * x * TO_PJ[quantity.unit] for x in band)
    return Estimate(value, low, high, "pJ", quantity.grade, quantity.source)


def total(parts: Iterable[Estimate], source: str) -> Estimate:
    """Return the sum; unknown if any part is."""
    parts = list(parts)
    if any(p.value is None for p in parts):
        return unknown("pJ", "; ".join(p.source for p in parts if p.value is None))
    if not parts:
        return nothing(source)
    low, value, high = (sum(getattr(p, key) for p in parts) for key in ("low", "value", "high"))
    return Estimate(value, low, high, "pJ", worst(p.grade for p in parts), source)


def worst(grades: Iterable[str]) -> str:
    """Return the worst of some grades."""
    return max(grades, key=GRADES.index)


def quantity_dict(quantity: Quantity) -> dict[str, Any]:
    """Return a number of a profile with the keys of an Estimate."""
    keys = ("value", "low", "high", "unit", "grade", "source")
    return {key: getattr(quantity, key) for key in keys}


# --- the energy of a run ---------------------------------------------------------------------
@dataclass(frozen=True)
class Term:
    """One kind of event: mean count per sample (None if unknown), its price, and their product.

    modelled: whether it is in the sums.
    """

    count: float | None
    unit_cost: Quantity
    energy: Estimate
    modelled: bool


@dataclass(frozen=True)
class Sums:
    """The energy per sample in one mode of running; total is static + dynamic."""

    static: Estimate
    dynamic: Estimate
    total: Estimate


@dataclass(frozen=True)
class Energy:
    """The energy of a sample, samples following one another without a gap (``streaming``) and of
    one sample alone (``alone``).

    terms: by kind of event, in the order of ``KINDS``, streaming. missing: kinds that ``total``
    lacks. known_part: the dynamic terms that could be priced. spread: standard deviation, smallest
    and largest dynamic energy over the samples, in pJ; None where it is unknown.
    """

    terms: Mapping[str, Term]
    streaming: Sums
    alone: Sums
    known_part: Estimate
    missing: tuple[str, ...]
    spread: dict[str, float] | None

    def sensitivity(self) -> list[dict[str, Any]]:
        """Return the sum in pJ with each price halved and doubled, largest share first.

        The sum is ``total``, or what is known of it where that is refused (``of``).
        """
        known = {k: t.energy.value for k, t in self.terms.items() if t.energy.value}
        whole = sum(known.values())
        of = "known part" if self.missing else "total"
        return [
            {"kind": kind, "of": of, "half": whole - value / 2, "double": whole + value,
             "share": value / whole}
            for kind, value in sorted(known.items(), key=lambda item: -item[1])
        ]  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "statement": STATEMENT,
            "per": "sample",
            "mode": "streaming",
            **_sums_dict(self.streaming),
            "dynamic_spread": self.spread,
            "complete": not self.missing,
            "missing": list(self.missing),
            "known_part": self.known_part.as_dict(),
            "by_source": {
                kind: {
                    "modelled": term.modelled,
                    "count": term.count,
                    "counted_in": COUNTED_IN.get(kind, "events"),
                    "unit_cost": quantity_dict(term.unit_cost),
                    "energy": term.energy.as_dict(),
                }
                for kind, term in self.terms.items()
            },
            "one_at_a_time": _sums_dict(self.alone),
            "sensitivity": self.sensitivity(),
        }


def _sums_dict(sums: Sums) -> dict[str, Any]:
    return {key: getattr(sums, key).as_dict() for key in ("static", "dynamic", "total")}


def price(
    counts: Counts,
    loads: Loads | None,
    profile: Profile,
    *,
    period: Estimate,
    alone: Estimate,
    why: str = NOT_PLACED,
) -> Energy:
    """Return what a sample costs on a profile.

    loads: the same samples on a placement, None without one; ``why`` says why there is none.
    period, alone: seconds from one sample to the next, and of one sample alone
    (``timing.Times.period`` and ``.seconds``); static energy is power times these.
    Inputs cost nothing but the synaptic operations they cause: what the host sends is ``host_io``.
    Raises StageError where counts and loads are of different runs.
    """
    if loads is not None and (loads.samples, loads.steps) != (counts.samples, counts.steps):
        raise StageError(
            f"loads of {loads.samples} samples of {loads.steps} steps, counts of {counts.samples} "
            f"of {counts.steps}: they must come from the same run"
        )
    events = _events(counts, loads, counts.steps)
    terms = {k: _term(k, events[k], profile, why) for k in DYNAMIC}
    terms["static"] = _static(profile, loads, period, why)
    host = unknown("pJ", NOT_MODELLED["host_io"])
    terms["host_io"] = Term(None, profile.energy.host_io, host, modelled=False)
    streaming = _sums(terms, profile)
    known = [terms[k].energy for k in DYNAMIC if terms[k].energy.value is not None]
    return Energy(
        terms=terms,
        streaming=streaming,
        alone=_alone(counts, loads, profile, alone, why),
        known_part=total(known, f"{profile.id}: sum over the events whose price is known"),
        missing=_missing(terms),
        spread=None if streaming.dynamic.value is None else _spread(events, profile),
    )


def _alone(
    counts: Counts, loads: Loads | None, profile: Profile, seconds: Estimate, why: str
) -> Sums:
    """Return the sums of one sample alone, whose neurons are updated until it has left."""
    if loads is None and profile.energy.scope == "per_event":
        refused = unknown("pJ", why)
        return Sums(refused, refused, refused)
    steps = counts.steps if loads is None else loads.run_steps
    events = _events(counts, loads, steps)
    terms = {k: _term(k, events[k], profile, why) for k in DYNAMIC}
    return _sums(terms | {"static": _static(profile, loads, seconds, why)}, profile)


def _events(counts: Counts, loads: Loads | None, steps: int) -> dict[str, np.ndarray | None]:
    """Return events by kind, per sample (samples,), where ``steps`` chip steps are a sample's; None
    where the count is unknown."""
    found: dict[str, np.ndarray | None] = {}
    none = np.zeros(counts.samples, np.int64)
    inside = [name for name, updates in counts.updates.items() if updates]
    for kind in SYNOPS:
        key = kind.removeprefix("synop_")
        found[kind] = sum((v[key] for v in counts.synops.values() if key in v), none)
    updates = sum(counts.updates.values()) // counts.steps
    found["neuron_update"] = none + updates * steps
    found["spike_out"] = sum((counts.spikes[name] for name in inside), none)
    for kind in SENT:
        found[kind] = None if loads is None else sum((_sent(loads, n, kind) for n in inside), none)
    found["core_step"] = None if loads is None else none + loads.cores * steps
    return found


def _sent(loads: Loads, name: str, kind: str) -> np.ndarray:
    """Return messages or hops of a population's messages, per sample."""
    field = {"message_out": "messages", "chip_message": "chip_messages"}
    names = field | {"hop_x": "hops_x", "hop_y": "hops_y"}
    return getattr(loads.layers[name], names[kind])


def _term(kind: str, events: np.ndarray | None, profile: Profile, why: str) -> Term:
    quantity = getattr(profile.energy, kind)
    count = None if events is None else float(events.mean())
    return Term(count, quantity, _charge(kind, count, profile, why), modelled=True)


def _charge(kind: str, count: float | None, profile: Profile, why: str) -> Estimate:
    """Return the energy of ``count`` events of a kind."""
    quantity = getattr(profile.energy, kind)
    if profile.energy.scope == "all_in" and kind not in SYNOPS:
        return nothing(INCLUDED)
    if count is None:
        return unknown("pJ", f"{NOT_MODELLED[kind]}: {why}")
    if count == 0:
        return nothing(NO_EVENT)
    return priced(count, quantity)


def _static(profile: Profile, loads: Loads | None, seconds: Estimate, why: str) -> Term:
    """Return the power of the chips that hold a part of the network, times ``seconds``."""
    quantity = profile.energy.static_chip
    time, power = seconds.band, quantity.band
    reason = why if loads is None else seconds.source
    count, cost = None, unknown("pJ", f"{NOT_MODELLED['static']}: {reason}")
    if loads is not None and time is not None:
        count = loads.chips * time[1]
        if power is None:
            cost = unknown("pJ", quantity.source)
        else:
            low, value, high = (
                loads.chips * p * t * PJ_PER_MW_S for p, t in zip(power, time, strict=True)
            )
            grade = worst((quantity.grade, seconds.grade))
            source = f"{quantity.source}; times {seconds.source}"
            cost = Estimate(value, low, high, "pJ", grade, source)
    if profile.energy.scope == "all_in":
        cost = nothing(INCLUDED)
    return Term(count, quantity, cost, modelled=True)


def _sums(terms: Mapping[str, Term], profile: Profile) -> Sums:
    dynamic = _refusable({k: terms[k].energy for k in DYNAMIC}, f"{profile.id}: all event kinds")
    static = terms["static"].energy
    both = {"dynamic": dynamic, "static": static}
    return Sums(static, dynamic, _refusable(both, f"{profile.id}: static + dynamic"))


def _refusable(parts: Mapping[str, Estimate], source: str) -> Estimate:
    """Return the sum; where a part is unknown, None and which part and why."""
    lacking = [f"{name} ({p.source})" for name, p in parts.items() if p.value is None]
    if lacking:
        return unknown("pJ", f"no sum without {', '.join(lacking)}")
    return total(parts.values(), source)


def _missing(terms: Mapping[str, Term]) -> tuple[str, ...]:
    return tuple(k for k, t in terms.items() if t.modelled and t.energy.value is None)


def _spread(events: Mapping[str, np.ndarray | None], profile: Profile) -> dict[str, float]:
    """Return how the dynamic energy varies from sample to sample, in pJ."""
    charged = DYNAMIC if profile.energy.scope == "per_event" else SYNOPS
    energy = np.zeros(len(events["spike_out"]))  # type: ignore[arg-type]
    for kind in charged:
        quantity, found = getattr(profile.energy, kind), events[kind]
        if found is not None and found.any():
            energy += found * (quantity.value * TO_PJ[quantity.unit])
    return {"std": float(energy.std()), "min": float(energy.min()), "max": float(energy.max())}


def layer_energy(
    name: str, counts: Counts, loads: Loads | None, profile: Profile, *, why: str = NOT_PLACED
) -> dict[str, Estimate]:
    """Return the dynamic energy per sample of one population, by kind of event, in pJ.

    Its own synaptic operations (those it receives), updates, spikes, and the messages and hops it
    sends. Active cores and static power are attributed to no layer: several layers may share a
    core. An input has no kinds.
    """
    updates = counts.updates[name]
    if not updates:
        return {}
    found: dict[str, float | None] = {
        f"synop_{kind}": float(v.mean()) for kind, v in counts.synops[name].items()
    }
    found["neuron_update"] = updates
    found["spike_out"] = float(counts.spikes[name].mean())
    for kind in SENT:
        found[kind] = None if loads is None else float(_sent(loads, name, kind).mean())
    return {kind: _charge(kind, found[kind], profile, why) for kind in DYNAMIC if kind in found}
