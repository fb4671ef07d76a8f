"""Published energies per event and per operation, and the same counts priced by every one of them.

The numbers lie in ``hardware_profiles/tables``, whose README documents every key. Sets differ in
what one figure covers, so each row says what it lacks and what is inside; a missing term is
unknown, never 0.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from neuroav.costs.energy import Estimate, priced, total, unknown
from neuroav.counts import Counts
from neuroav.errors import ProfileError
from neuroav.hardware import Quantity
from neuroav.profile_files import table_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KINDS = ("conv", "dense", "sparse")
TERMS = ("synops", "neuron_update", "spike_out")
INCLUDED = "inside the figure of a synaptic operation"
LACKS = "the set has no such figure"
NO_DENSE = "charges every synapse in every step; the number of synapses was not given"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Strict):
    """Energy of one operation at one technology node, and of one 64-bit access to memory."""

    title: str
    supply: str
    int8_add: Quantity
    int8_mult: Quantity
    int32_add: Quantity
    int32_mult: Quantity
    fp32_add: Quantity
    fp32_mult: Quantity
    sram_8kb: Quantity
    sram_32kb: Quantity
    sram_1mb: Quantity
    dram: Quantity


class Operations(_Strict):
    """``arithmetic.toml``. reuse: multiply-accumulates per operand fetched from SRAM."""

    schema_: Literal[1] = Field(alias="schema")
    reuse: Quantity
    nodes: dict[str, Node]


class CoefficientSet(_Strict):
    """What one publication says an event costs.

    scope: 'per_event', or 'all_in' where the whole chip's energy is divided by its synaptic
    operations. charged: 'events', or 'every_step' where every synapse counts in every step.
    synop is the figure of all kinds that have none of their own.
    """

    id: str = Field(pattern=r"^[a-z0-9-]+$")
    title: str
    node: str
    scope: Literal["per_event", "all_in"]
    charged: Literal["events", "every_step"] = "events"
    synop: Quantity | None = None
    synop_conv: Quantity | None = None
    synop_dense: Quantity | None = None
    synop_sparse: Quantity | None = None
    neuron_update: Quantity | None = None
    spike_out: Quantity | None = None
    note: str = ""

    @model_validator(mode="after")
    def _whole(self) -> CoefficientSet:
        if self.synop is None and None in (getattr(self, f"synop_{kind}") for kind in KINDS):
            raise ValueError("needs synop, or synop_conv, synop_dense and synop_sparse")
        if self.scope == "all_in" and (self.neuron_update or self.spike_out):
            raise ValueError("an all_in figure contains neuron_update and spike_out")
        if self.charged == "every_step" and self.synop is None:
            raise ValueError("needs synop, every synapse is charged alike")
        return self

    def of_kind(self, kind: str) -> Quantity:
        """Return the figure of a synaptic operation of one kind, see ``KINDS``."""
        figure = getattr(self, f"synop_{kind}") or self.synop
        assert figure is not None  # _whole sees to it
        return figure


class _Sets(_Strict):
    schema_: Literal[1] = Field(alias="schema")
    sets: tuple[CoefficientSet, ...]

    @field_validator("sets")
    @classmethod
    def _distinct(cls, sets):
        ids = [s.id for s in sets]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"ids occur twice: {', '.join(twice)}")
        return sets


Table = TypeVar("Table", Operations, _Sets)


def _parse(model: type[Table], text: str, where: str) -> Table:
    try:
        return model(**tomllib.loads(text))
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise ProfileError(f"{where}: not a TOML table: {error}") from None
    except ValidationError as error:
        problems = (
            f"key {'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise ProfileError(
            f"{where}: {'; '.join(problems)}; hardware_profiles/tables/README.md lists the keys"
        ) from None


@cache
def load_operations() -> Operations:
    """Return the energies of arithmetic and memory, by node ('45nm', '7nm')."""
    return _parse(Operations, table_text("arithmetic.toml"), "arithmetic.toml")


@cache
def load_coefficients() -> tuple[CoefficientSet, ...]:
    """Return every published set of energies per event, in the order of the table."""
    return _parse(_Sets, table_text("coefficients.toml"), "coefficients.toml").sets


# --- side by side -----------------------------------------------------------------------------
def event_totals(counts: Counts, inputs: Collection[str]) -> tuple[dict[str, float], float, float]:
    """Return mean events per sample: (synaptic operations by kind, neuron updates, messages).

    inputs: populations whose messages come from the host; they are not the chip's to send.
    """
    synops = dict.fromkeys(KINDS, 0.0)
    for kinds in counts.synops.values():
        for kind, value in kinds.items():
            synops[kind] += float(value.mean())
    spikes = sum(v for n, v in counts.spikes_per_sample().items() if n not in inputs)
    return synops, float(sum(counts.updates.values())), spikes


def side_by_side(
    synops_by_kind: Mapping[str, float],
    updates: float,
    spikes: float,
    *,
    synapse_steps: float | None = None,
    sets: Collection[CoefficientSet] | None = None,
) -> list[dict[str, Any]]:
    """Return one row per published set: its energy of these events, per sample, in pJ.

    synops_by_kind, updates, spikes: events per sample, as ``event_totals`` gives them.
    synapse_steps: synapses times steps, for sets that charge every synapse in every step. sets:
    all published ones unless given.

    Keys of a row: id, title, node, scope, charged, note; synops, neuron_update, spike_out, total:
    estimates; lacks: terms the set has no figure for, left out of total; included: terms inside the
    figure of a synaptic operation; complete: whether none of the three is lacking; grade, source.
    """
    chosen = load_coefficients() if sets is None else sets
    return [_row(s, synops_by_kind, updates, spikes, synapse_steps) for s in chosen]


def _row(
    one: CoefficientSet,
    synops: Mapping[str, float],
    updates: float,
    spikes: float,
    synapse_steps: float | None,
) -> dict[str, Any]:
    parts = {
        "synops": _synops(one, synops, synapse_steps),
        "neuron_update": _term(one, updates, one.neuron_update),
        "spike_out": _term(one, spikes, one.spike_out),
    }
    # a term with a figure belongs to the sum, and makes it unknown where the figure is
    missing = [t for t in TERMS[1:] if getattr(one, t) is None]
    charged = [p for t, p in parts.items() if t not in missing]
    whole = one.scope == "all_in"
    energy = total(charged, "; ".join(dict.fromkeys(p.source for p in charged)))
    return {
        **{k: getattr(one, k) for k in ("id", "title", "node", "scope", "charged", "note")},
        **{k: p.as_dict() for k, p in parts.items()},
        "total": energy.as_dict(),
        "grade": energy.grade,
        "source": energy.source,
        "lacks": [] if whole else missing,
        "included": missing if whole else [],
        "complete": whole or not missing,
    }


def _synops(
    one: CoefficientSet, synops: Mapping[str, float], synapse_steps: float | None
) -> Estimate:
    if one.charged == "every_step":
        assert one.synop is not None  # the loader sees to it
        return (
            unknown("pJ", NO_DENSE) if synapse_steps is None else priced(synapse_steps, one.synop)
        )
    parts = [priced(count, one.of_kind(kind)) for kind, count in synops.items()]
    return total(parts, "; ".join(dict.fromkeys(p.source for p in parts)))


def _term(one: CoefficientSet, count: float, figure: Quantity | None) -> Estimate:
    if figure is not None:
        return priced(count, figure)
    return unknown("pJ", INCLUDED if one.scope == "all_in" else LACKS)
