"""Two integer graphs, population by population: which fields differ, and the first other spike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.errors import OutOfRange
from neuroav.explain.layers import first_place
from neuroav.explain.recompute import integer_drive, lif, outputs, port_sums
from neuroav.explain.rederive import derive
from neuroav.fixed import Arithmetic

Messages = Mapping[str, np.ndarray]
NETWORK = "(network)"
CAUSES = {
    "weight": "weight",
    "threshold": "threshold",
    "decay_u": "decay",
    "decay_v": "decay",
    "delay": "delay",
    "lag": "delay",
    "bias": "bias",
    "bias_mantissa": "bias",
    "bias_exponent": "bias",
    "source": "order",
}  # every other field is a 'parameter'


@dataclass(frozen=True)
class Difference:
    """One field that differs. expected: of the first graph, found: of the other.

    projection: number and source of the synapses it belongs to, '' for a field of the neurons.
    index: of the first entry that differs, None where the field is one value. count: how many do.
    cause: in the words of ``neuroav verify``.
    """

    node: str
    field: str
    projection: str
    index: tuple[int, ...] | None
    expected: Any
    found: Any
    count: int
    cause: str


def differences(expected: ig.IntGraph, found: ig.IntGraph) -> list[Difference]:
    """Return every field that differs between two integer graphs, in execution order."""
    result = [
        _whole(NETWORK, f, [getattr(expected, f), getattr(found, f)])
        for f in ("output", "steps", "dt_s")
        if getattr(expected, f) != getattr(found, f)
    ]
    for name in (*expected.order, *(n for n in found.order if n not in expected.populations)):
        a, b = expected.populations.get(name), found.populations.get(name)
        if a is None or b is None:
            words = ["absent" if s is None else "present" for s in (a, b)]
            result.append(_whole(name, "population", words))
            continue
        result += population_differences(name, a, b)
        scales = [list(g.scales[name]) for g in (expected, found)]
        if scales[0] != scales[1]:
            result.append(_whole(name, "scale", scales))
    return result


def _whole(name: str, field: str, values: Sequence[Any], cause: str = "parameter") -> Difference:
    """Return a difference in what has no index; values: expected and found."""
    return Difference(name, field, "", None, values[0], values[1], 1, cause)


def population_differences(
    name: str, expected: ig.Population, found: ig.Population
) -> list[Difference]:
    """Return the fields of one population, and of its synapses, that differ."""
    if type(expected) is not type(found):
        return [_whole(name, "class", [type(expected).__name__, type(found).__name__])]
    result = list(_fields(name, "", expected, found))
    pairs = list(zip(expected.projections, found.projections, strict=False))
    same = len(expected.projections) == len(found.projections)
    if not same or any(type(a) is not type(b) for a, b in pairs):
        words = [[f"{type(p).__name__} from {p.source}" for p in pop.projections]
                 for pop in (expected, found)]  # fmt: skip
        cause = "order" if sorted(words[0]) == sorted(words[1]) else "parameter"
        return [*result, _whole(name, "projections", words, cause)]
    for number, (a, b) in enumerate(pairs):
        result += _fields(name, f"{number} from {a.source}", a, b)
    return result


def _fields(name: str, projection: str, expected: Any, found: Any) -> Iterator[Difference]:
    """Yield a Difference for every field of two dataclasses of one class that differs."""
    for field in fields(expected):
        if field.name == "projections":
            continue
        a, b = getattr(expected, field.name), getattr(found, field.name)
        cause = CAUSES.get(field.name, "parameter")
        if not isinstance(a, np.ndarray):
            if a != b:
                yield Difference(name, field.name, projection, None, a, b, 1, cause)
            continue
        try:
            a, b = np.broadcast_arrays(a, b)
        except ValueError:
            shapes = list(a.shape), list(b.shape)
            yield Difference(name, field.name, projection, None, *shapes, 1, cause)
            continue
        places = np.argwhere(a != b)
        if len(places):
            at = tuple(int(i) for i in places[0])
            values = int(a[at]), int(b[at])
            yield Difference(name, field.name, projection, at, *values, len(places), cause)


# --- what the other graph sends -----------------------------------------------------------------
def first_other_spike(
    deployment: Deployment, other: ig.IntGraph, name: str, messages: Messages
) -> dict[str, Any] | None:
    """Return the first output that population ``name`` of ``other`` sends differently, with cause.

    Both populations get ``messages``, those of the integer network of ``deployment``, so that the
    difference is this population's own. None where all outputs are equal or cannot be compared.
    """
    graph, arith = deployment.integer, deployment.profile.arithmetic
    a, b = graph.populations.get(name), other.populations.get(name)
    if a is None or b is None or not _comparable(graph, a, b):
        return None
    try:
        found = outputs(graph, name, b, messages, arith)
    except OutOfRange as error:
        return {"node": name, "cause": "overflow", "message": str(error)}
    different = found != messages[name]
    if not different.any():
        return None
    sample, step, index = first_place(different)
    place = (sample, step, *index)
    return {
        "node": name,
        "sample": sample,
        "step": step,
        "index": list(index),
        "values": [int(messages[name][place]), int(found[place])],
        "cause": _cause(graph, name, a, b, messages, arith, place, int(found[place])),
        "quantities": [quantities(graph, name, pop, messages, arith, place) for pop in (a, b)],
    }


def _comparable(graph: ig.IntGraph, a: ig.Population, b: ig.Population) -> bool:
    """Return whether b can stand in for a: the same neurons, and sources that the graph has."""
    known = all(p.source in graph.populations and p.port < b.ports for p in b.projections)
    computed = not isinstance(a, ig.IntInput) and not isinstance(b, ig.IntInput)
    return known and computed and a.shape == b.shape


def quantities(
    graph: ig.IntGraph,
    name: str,
    pop: ig.Population,
    messages: Messages,
    arith: Arithmetic,
    place: tuple[int, ...],
) -> dict[str, int]:
    """Return synaptic sum, bias, membrane before reset and threshold at a place.

    In registers' units for leaky neurons; the synaptic sum alone for others.
    """
    sums = port_sums(graph, name, pop, messages)
    if not isinstance(pop, ig.IntLif):
        return {"synaptic_sum": int(sums[0][place])}
    drive, index = integer_drive(pop, sums[0], arith), tuple(place[2:])
    one = drive.only(place[0], index)
    membrane = lif(one)[1][0, place[1]]
    return {
        "synaptic_sum": int(one.current[0, place[1]]),
        "bias": int(one.bias),
        "membrane": int(membrane),
        "threshold": int(one.level),
    }


def _cause(graph, name, a, b, messages, arith, place, value: int) -> str:
    """Return the one cause whose fields, put into ``a`` alone, give ``b``'s output at the place.

    'parameter' where it takes several.
    """
    found = population_differences(name, a, b)
    causes = list(dict.fromkeys(d.cause for d in found))
    for cause in causes:
        changed = _with_fields(a, b, [d for d in found if d.cause == cause])
        try:
            if changed and int(outputs(graph, name, changed, messages, arith)[place]) == value:
                return cause
        except OutOfRange:
            continue
    return "parameter"


def _with_fields(
    a: ig.Population, b: ig.Population, taken: list[Difference]
) -> ig.Population | None:
    """Return ``a`` with these fields of ``b``; None where synapses as a whole differ."""
    if any(d.field in ("projections", "class") for d in taken):
        return b if type(a) is type(b) else None
    own = {d.field: getattr(b, d.field) for d in taken if not d.projection}
    parts = list(a.projections)
    for d in taken:
        if d.projection:
            number = int(d.projection.partition(" ")[0])
            new = {d.field: getattr(b.projections[number], d.field)}
            parts[number] = replace(parts[number], **new)
    return replace(a, projections=tuple(parts), **own)


def compare_graphs(
    deployment: Deployment, other: ig.IntGraph, messages: Messages, explain: bool
) -> dict[str, Any]:
    """Return the fields in which ``other`` differs, and the earliest spike it sends differently.

    messages: of the integer network of ``deployment``. explain: with one first spike for every
    population that differs, not only the earliest.
    """
    found = differences(deployment.integer, other)
    names = list(dict.fromkeys(d.node for d in found if d.node != NETWORK))
    firsts = [first_other_spike(deployment, other, n, messages) for n in names]
    spikes = [f for f in firsts if f is not None]
    rank = deployment.integer.order.index
    placed = [f for f in spikes if "sample" in f]
    earliest = min(placed, key=lambda f: (f["sample"], f["step"], rank(f["node"])), default=None)
    result: dict[str, Any] = {
        "equal": not found,
        "differences": [plain(d) for d in found],
        "first_divergence": earliest or (spikes[0] if spikes else None),
    }
    return result | ({"first_by_node": spikes} if explain else {})


def plain(difference: Difference) -> dict[str, Any]:
    """Return a difference as JSON has it."""
    index = difference.index
    values = {f.name: getattr(difference, f.name) for f in fields(difference)}
    return values | {"index": None if index is None else list(index)}


def altered(deployment: Deployment) -> list[Difference]:
    """Return where a file's integers are not those that its own real-valued twin gives.

    Delays of all populations; weights, thresholds, biases and decays of those that can be derived
    again (``rederive``). expected: from the twin. Sources stay as they are.
    """
    graph, result = deployment.integer, []
    for name in graph.order:
        pop, derived = graph.populations[name], derive(deployment, name)
        expected = derived.population if derived and derived.settings else pop
        parts = tuple(
            replace(p, delay=graph.aligned_delay(name, p.source, p.lag))
            for p in expected.projections
        )
        result += population_differences(name, replace(expected, projections=parts), pop)
    return result
