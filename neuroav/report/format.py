"""Numbers and names as text: thin-space thousands, SI prefixes, bands, safe labels.

Unknown values are shown as a dash. ``NARROW`` never breaks a line, so a number keeps its unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

NARROW = "\u202f"  # narrow no-break space
UNKNOWN = "–"
_PREFIXES = {-12: "p", -9: "n", -6: "µ", -3: "m", 0: "", 3: "k"}
_SCALE = {"pJ": -12, "nJ": -9, "uJ": -6, "ns": -9, "us": -6, "mW": -3, "J": 0, "s": 0}

EVENT_KINDS = {
    "synop_conv": "synaptic operations, convolution",
    "synop_dense": "synaptic operations, dense",
    "synop_sparse": "synaptic operations, one to one",
    "neuron_update": "neuron updates",
    "spike_out": "spikes generated",
    "message_out": "messages to cores",
    "hop_x": "hops along rows",
    "hop_y": "hops along columns",
    "chip_message": "messages between chips",
    "core_step": "active cores, every step",
    "static": "static power",
    "host_io": "host input and output",
    "synop": "synaptic operations",
    "message_in": "messages received",
    "barrier": "agreement of all cores",
    "step_floor": "shortest step",
}
RESOURCES = {
    "neurons": "neurons",
    "memory_synapse": "synaptic memory",
    "memory_total": "memory",
    "axons_in": "input axons",
    "axons_out": "output axons",
    "programs": "neuron programs",
    "state_bytes": "neuron state",
}
SET_TERMS = {
    "synops": "synaptic operations",
    "neuron_update": "neuron updates",
    "spike_out": "spikes generated",
}
NODE_KINDS = {
    "input": "input",
    "lif": "spiking neurons",
    "or": "OR pooling",
    "and": "AND of spikes",
    "sum": "graded sum",
    "time-sum": "sum over the sample",
    "product": "product",
    "winner": "strongest class",
    "attention": "attention counts",
    "readout": "class scores",
}
GRADE_MEANING = {
    "A": "published and measured",
    "A-sim": "published, simulated before silicon",
    "B": "derived from published figures",
    "C": "assumed or unknown",
}


# --- numbers ----------------------------------------------------------------------------------
def count(value: float | None) -> str:
    """Return a number of events: whole from 100 up, else three digits."""
    if value is None:
        return UNKNOWN
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}".replace(",", NARROW)
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal; tiny ones with two digits."""
    if share is None:
        return UNKNOWN
    text = f"{100 * share:.1f}" if share == 0 or share >= 0.001 else f"{100 * share:.2g}"
    return f"{text}{NARROW}%"


def interval(low: float, high: float) -> str:
    """Return a span of shares as percentages."""
    return f"{100 * low:.1f}–{100 * high:.1f}{NARROW}%"


def digits(value: float) -> str:
    """Return a value to three significant digits, never in exponent notation."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}".replace(",", NARROW)
    return text.rstrip("0").rstrip(".") if decimals and float(value).is_integer() else text


def _prefix(value: float, unit: str) -> tuple[float, str]:
    """Return the factor and the unit in which ``value`` reads as 1 to 999."""
    if unit not in _SCALE:
        return 1.0, {"count": ""}.get(unit, unit)
    base = unit[-1]
    power = _SCALE[unit]
    size = 0 if value == 0 else math.floor(math.log10(abs(value) * 1.0005)) + power
    chosen = min(max(size // 3 * 3, min(_PREFIXES)), max(_PREFIXES))
    if value == 0:
        chosen = power
    return 10.0 ** (power - chosen), f"{_PREFIXES[chosen]}{base}"


def si(value: float | None, unit: str) -> str:
    """Return a quantity with the SI prefix that suits it: 12345 pJ is 12.3 nJ."""
    if value is None:
        return UNKNOWN
    factor, shown = _prefix(value, unit)
    return f"{digits(value * factor)}{NARROW}{shown}".rstrip()


def counted(row: Mapping[str, Any]) -> str:
    """Return the count of an event kind with what it is counted in, where that is not events."""
    if row["count"] is None:
        return UNKNOWN
    if row["counted_in"] == "chip seconds":
        return f"{si(row['count'], 's')} of chips"
    unit = "" if row["counted_in"] == "events" else f" {row['counted_in']}"
    return f"{count(row['count'])}{unit}"


def estimate(item: Mapping[str, Any]) -> str:
    """Return the value of an estimate with its unit."""
    return si(item["value"], item["unit"])


def band(item: Mapping[str, Any]) -> str:
    """Return low and high of an estimate, or that its source gives no range."""
    if not item["value"]:
        return UNKNOWN
    low, high = item["low"], item["high"]
    if low is None or high is None or low == high:
        return "no range given"
    factor, shown = _prefix(item["value"], item["unit"])
    return f"{digits(low * factor)}–{digits(high * factor)}{NARROW}{shown}"


# --- names ------------------------------------------------------------------------------------
def clean(text: object) -> str:
    """Return text on one line without control characters, for pages and terminals."""
    return "".join(c if c.isprintable() or c == NARROW else "\ufffd" for c in str(text))


def kind_name(kind: str) -> str:
    """Return the words for an event kind of a profile."""
    return EVENT_KINDS.get(kind, kind.replace("_", " "))


def resource_name(key: str) -> str:
    """Return the words for a limited resource of a core."""
    return RESOURCES.get(key, key.replace("_", " "))


def set_term(key: str) -> str:
    """Return the words for a term of a set of coefficients."""
    return SET_TERMS.get(key, key.replace("_", " "))


def short(digest: str | None) -> str:
    """Return the first digits of a hash."""
    return digest[:12] if digest else UNKNOWN


def labels(paths: Sequence[str]) -> list[str]:
    """Return the shortest endings of the paths that tell them apart."""
    parts = [path.replace("\\", "/").split("/") for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        endings = ["/".join(p[-length:]) for p in parts]
        if len(set(endings)) == len(endings):
            break
    return endings


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield (dotted key, text) for every leaf of nested objects, in their order."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield name, UNKNOWN if value is None else clean(value)


# --- plain-text tables ------------------------------------------------------------------------
def plain(text: object) -> str:
    """Return a text fit for a cell of a Markdown table: no bar, no tag, ordinary spaces."""
    return clean(text).replace(NARROW, " ").replace("|", "\\|").replace("<", "&lt;")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: str = "") -> str:
    """Return an aligned Markdown table; ``right`` has an 'r' at each column of numbers."""
    cells = [[plain(c) for c in row] for row in (columns, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(columns))]
    flush = [right[i : i + 1] == "r" for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        padded = (
            c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, flush, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, flush, strict=True)]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])
