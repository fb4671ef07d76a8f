"""NIR in: a .nir file or ``nir.NIRGraph`` as a traced graph, or compiled to a deployment.

What each primitive becomes is in ``READS``, what is refused in ``REFUSES``; ``docs/formats.md``
shows both. Equations: ``nir_nodes``; loops: ``nir_graph``; files: ``nir_file``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from neuroav import nodes as rn
from neuroav.deployment import Deployment, Probe
from neuroav.errors import ConfigError, DataError, FileFormatError, UnsupportedNode
from neuroav.graph import SpikingGraph, topological_order
from neuroav.host import Sends
from neuroav.quantization import Calibration
from neuroav.stages import verify_graph
from neuroav_export.pipeline import compile_graph
from neuroav_export.readers.nir_build import Builder, Settings, View
from neuroav_export.readers.nir_file import load
from neuroav_export.readers.nir_graph import FlatGraph, Late, flatten, late_edges
from neuroav_export.readers.nir_nodes import delay_steps, visit
from neuroav_export.readers.nir_shapes import Shape, declared, infer, numbers

Decode = Literal["rate", "last"]
Reset = Literal["value", "subtract", "subtract-late"]
Decay = Literal["euler", "exponential"]
READS = {
    "Input": "Input of event counts; two axes (C, L) become (C, 1, L)",
    "Output": "a mean over time of spikes, the last value of LI, CubaLI and I, or as `decode` says",
    "Affine, Linear": "Dense; reads rows and columns in C order",
    "Scale": "Scale; factors of their own go into the weights that read or feed it; 1: the sum of "
    "the edges",
    "Conv1d, Conv2d": "Conv2d; `same`, `valid`, groups, any kernel",
    "SumPool2d, AvgPool2d": "the same; padded places count as 0",
    "Flatten": "the same numbers in C order",
    "Threshold": "neurons that forget in one step; below 1 behind a SumPool2d of spikes: MaxPool2d",
    "Delay": "Delay of whole steps, the same for all values of the node",
    "LIF, CubaLIF": "Lif, one value or one per neuron of everything; r and w_in in the weights",
    "IF": "If; r dt in the weights",
    "LI, CubaLI": "Li, one tau and v_leak for all",
    "I": "a mean over time, times r and the duration: its value after the last step",
    "NIRGraph": "opened: `OUTER.INNER`; edges that meet add; a loop's feedback is one step late",
}
REFUSES = {
    "Delay": "delays that differ between values of one node, or are no whole number of steps",
    "LIF, CubaLIF, LI, CubaLI": "tau below the step; tau or r infinite (write an IF)",
    "LI, CubaLI": "tau or v_leak that differ between neurons",
    "I": "inside the network, in front of neurons or pooling",
    "Affine, Linear": "stacks of matrices, weights of more than two axes",
    "Conv1d, Conv2d": "`same` with a stride, or with an even kernel and dilation",
    "Scale": "a factor of its own at every place where no layer of weights can take it",
    "NIRGraph": "several inputs or outputs inside another graph; loops without neurons or Delay",
    "anything else": "primitives that NIR 1.0 does not name",
}


def read_nir(
    source: str | Path | Any,
    *,
    dt_s: float | None = None,
    steps: int | None = None,
    unit_s: float = 1.0,
    decode: Decode | None = None,
    reset: Reset = "value",
    decay: Decay = "euler",
    inclusive: bool = False,
    output: str | None = None,
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
    input_shapes: Mapping[str, Shape] | None = None,
) -> SpikingGraph:
    """Return the network of a NIR file or ``nir.NIRGraph`` at stage 'traced'.

    dt_s: time step in seconds, steps: per sample; both from the file where it is one of ours.
    unit_s: seconds in the file's unit of time: 1e-3 for time constants in ms, ``dt_s`` for ones in
    steps. decode: class scores are the mean over time ('rate') or the last value ('last') of what
    the output reads; by default the mean for spikes and layers, the last value for membranes.
    reset: NIR cannot say that a spike subtracts the threshold; 'subtract' does, 'subtract-late' in
    the next step, after the decay. decay: per step 1 - dt / tau ('euler') or exp(-dt / tau), the
    equation's exact solution ('exponential'). inclusive: spike at the threshold too. output: which
    Output node, if there are several. max_count, static: as for ``compile_module``. input_shapes:
    of inputs whose shape the file lacks.
    Raises FileFormatError, UnsupportedNode, ConfigError, StageError.
    """
    graph = flatten(load(source), output)
    settings = _settings(
        graph, dt_s, steps, unit_s, reset, decay, inclusive, max_count or {}, frozenset(static)
    )
    return _built(graph, _late(graph, settings), settings, decode, input_shapes or {})


def import_nir(
    source: str | Path | Any,
    sample: Mapping[str, np.ndarray] | np.ndarray,
    *,
    dt_s: float | None = None,
    target: str = "loihi2",
    bits: int = 8,
    calibration: Calibration = "mse",
    per_channel: bool = False,
    classes: tuple[str, ...] = (),
    probe: Probe | None = None,
    provenance: Mapping[str, object] | None = None,
    unit_s: float = 1.0,
    decode: Decode | None = None,
    reset: Reset = "value",
    decay: Decay = "euler",
    inclusive: bool = False,
    output: str | None = None,
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
    host: Sends = "current",
) -> Deployment:
    """Return the deployment of a NIR file or ``nir.NIRGraph``.

    sample: event counts (samples, steps, *shape) by input, or one array for a single input; any
    axes of as many values as the input has. It fixes the steps and the ranges of all registers, see
    ``compile_module``. Other options: ``read_nir`` and ``compile_module``. classes: names, from the
    file where it is one of ours. Raises as ``read_nir`` and ``compile_module``.
    """
    graph = flatten(load(source), output)
    given, steps = _given(sample, graph)
    settings = _settings(
        graph, dt_s, steps, unit_s, reset, decay, inclusive, max_count or {}, frozenset(static)
    )
    late = _late(graph, settings)
    shapes = {n: v.shape[2:] for n, v in given.items()}
    traced = _built(graph, late, settings, decode, shapes)
    facts = {
        "format": "nir",
        "reset": reset,
        "decay": decay,
        "late": [f"{s} -> {n}" for n, s in sorted(late)],
        "repeated_edges": graph.repeated,
    }
    return compile_graph(
        traced,
        _shaped(given, traced),
        target=target,
        bits=bits,
        calibration=calibration,
        per_channel=per_channel,
        classes=classes or _classes(graph, traced),
        probe=probe,
        provenance={"imported": facts, **(provenance or {})},
        host=host,
    )


def read_deployment(
    path: str | Path,
    *,
    steps: int | None = None,
    target: str = "loihi2",
    classes: tuple[str, ...] = (),
    sample: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> Deployment:
    """Return ``import_nir`` of a file, as the table of readers calls it; steps: of the sample."""
    if sample is None:
        raise ConfigError(
            "a NIR file holds real numbers, and the ranges of the integers come from samples; give "
            "some (--samples FILE.npz: an array (samples, steps, *shape) by the input's name)"
        )
    return import_nir(path, sample, target=target, classes=classes, **options)


def reads_table() -> str:
    """Return the Markdown table of what is read and refused, as ``docs/formats.md`` shows it."""
    rows = [f"| `{name}` | {how} |" for name, how in READS.items()]
    rows += [f"| `{name}` | **refused**: {what} |" for name, what in REFUSES.items()]
    return "\n".join(["| NIR primitive | is read as |", "|---|---|", *rows])


# --- steps of reading ------------------------------------------------------------------------
def _settings(
    graph: FlatGraph,
    dt_s: float | None,
    steps: int | None,
    unit_s: float,
    reset: str,
    decay: str,
    inclusive: bool,
    max_count: Mapping[str, int],
    static: frozenset[str],
) -> Settings:
    """Return the options, those left out as the file's metadata say; ConfigError for bad ones."""
    unit_s = _positive("unit_s", unit_s)
    dt_s = _fact(graph, "dt_s", float) if dt_s is None else dt_s
    steps = _fact(graph, "steps", int) if steps is None else steps
    if dt_s is None:
        raise _no_step(graph, unit_s)
    if steps is None:
        raise ConfigError("the file does not say how many steps a sample has; give steps")
    _one_of("reset", reset, get_args(Reset))
    _one_of("decay", decay, get_args(Decay))
    for name in {*max_count, *static} - set(graph.inputs):
        raise ConfigError(f"{name!r} is no input of the network, it has {sorted(graph.inputs)}")
    dt_s, steps = _positive("dt_s", dt_s), _whole_steps(steps)
    return Settings(dt_s, unit_s, steps, reset, decay, inclusive, max_count, static)


def _late(graph: FlatGraph, settings: Settings) -> Late:
    return late_edges(graph, _delays(graph, settings), frozenset(_stated_late(graph)))


def _delays(graph: FlatGraph, settings: Settings) -> set[str]:
    """Return the names of NIR's delays of at least a step."""
    kinds = graph.primitives.items()
    return {n for n, p in kinds if p.kind == "Delay" and delay_steps(p, n, settings.dt) > 0}


def _built(
    graph: FlatGraph,
    late: Late,
    settings: Settings,
    decode: Decode | None,
    given: Mapping[str, Shape],
) -> SpikingGraph:
    shapes = infer(graph, given)
    stated = graph.declared and declared(graph.declared, "shape", "output_type")
    if stated and int(np.prod(stated)) != int(np.prod(shapes[graph.answer])):
        raise FileFormatError(
            f"{graph.answer}: gives {shapes[graph.answer]}, the output node states {stated}; make "
            "them equal"
        )
    work = Builder(graph, shapes, late, settings)
    work.delays = {s: d for d, s, _ in _stated_delays(graph)}
    prompt = {
        n: tuple(s for s in sources if (n, s) not in late) for n, sources in graph.sources.items()
    }
    waits = {(n, s) for n in _delays(graph, settings) for s in prompt[n]}
    for name in topological_order(prompt, waits):
        visit(work, name)
    work.close()
    answer = _decoded(work, graph, decode)
    return verify_graph(
        SpikingGraph(
            work.nodes, work.inputs, work.shapes, answer, settings.dt_s, settings.steps, "traced"
        )
    )


def _decoded(work: Builder, graph: FlatGraph, decode: Decode | None) -> str:
    """Return the node with the class scores, added to ``work``."""
    if decode not in (None, "rate", "last"):
        raise ConfigError(f"decode is {decode!r}, allowed are 'rate' and 'last'")
    view: View = work.views[graph.answer]
    name = "scores"
    while name in work.nodes:
        name += "_"
    node = work.plain(name, view) if view.factor is not None else view.node
    if node in work.timeless:
        if decode == "rate":
            raise UnsupportedNode(
                f"{graph.answer}: is an integrator (I), which decode='rate' would average over its "
                "own history; leave decode out for its last value"
            )
        return node
    membrane = isinstance(work.nodes[node], rn.Li)
    last = decode == "last" or (decode is None and membrane)
    if last and node in work.binary:
        raise UnsupportedNode(
            f"{graph.answer}: sends spikes; those of the last step alone (decode='last') are no "
            "class scores: use decode='rate'"
        )
    if len(work.shapes[node]) > 1:  # class scores have one axis
        size = (int(np.prod(work.shapes[node])),)
        node = work.put(f"{name}.flatten", rn.Flatten(), (node,), size).node
    made = rn.TimeLast() if last else rn.TimeMean()
    return work.put(name, made, (node,), work.shapes[node]).node


# --- what the file says beside its graph -----------------------------------------------------
def _fact(graph: FlatGraph, name: str, kind: type) -> Any:
    """Return a number from the metadata, None where it is not there or no number."""
    value = graph.metadata.get(name)
    if value is None and name == "dt_s":
        value = graph.metadata.get("dt")
    if value is None:
        return None
    try:
        return kind(value if isinstance(value, (str, int, float)) else np.asarray(value).item())
    except (ValueError, TypeError):
        raise FileFormatError(
            f"the file's metadata say {name} is {str(value)[:40]!r}, allowed is a number"
        ) from None


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}, allowed are {', '.join(map(repr, allowed))}")


def _positive(name: str, value: Any) -> float:
    if isinstance(value, (int, float)) and 0 < value < float("inf"):
        return float(value)
    raise ConfigError(f"{name} is {value!r}, must be a positive number of seconds")


def _whole_steps(value: Any) -> int:
    if isinstance(value, (int, np.integer)) and 1 <= value <= 1 << 20:
        return int(value)
    raise ConfigError(f"steps is {value!r}, must be a whole number from 1 to {1 << 20}")


def _no_step(graph: FlatGraph, unit_s: float) -> ConfigError:
    """Return the error for a missing dt_s, with the steps at which an input adds its weight."""
    found: dict[str, float] = {}
    for name, p in graph.primitives.items():
        if p.kind in ("LIF", "CubaLIF", "LI", "CubaLI"):
            tau = numbers(p, name, "tau" if "tau" in p.values else "tau_mem")
            found[name] = float(np.median(tau / numbers(p, name, "r", 1.0).mean())) * unit_s
        elif p.kind in ("IF", "I"):
            found[name] = float(1 / np.median(numbers(p, name, "r", 1.0))) * unit_s
    hint = ", ".join(f"{v:.6g} s in {n}" for n, v in list(found.items())[:6])
    return ConfigError(
        "the file does not say how long a time step is; give dt_s, the step in seconds that the "
        "network was made with (snnTorch and SpikingJelly write files for 1e-4)"
        + (
            f"; an input adds its own value to a membrane (r dt / tau = 1) at {hint}"
            if hint
            else ""
        )
    )


def _stated_delays(graph: FlatGraph) -> list[tuple[str, str, list[str]]]:
    """Return (delay, source, readers) of the loops that our own writer closed without a node."""
    text = graph.metadata.get("late")
    if text is None or graph.metadata.get("format") != "neuroav-nir":
        return []
    try:
        found = [(str(d), str(s), [str(r) for r in rs]) for d, s, rs in json.loads(str(text))]
    except (ValueError, TypeError):
        raise FileFormatError("the file's metadata 'late' is no list of loops") from None
    for _, source, readers in found:
        for reader in readers:
            if source not in graph.sources.get(reader, ()):
                raise FileFormatError(
                    f"the file's metadata say {reader} reads {source} one step late; it does not"
                )
    return found


def _stated_late(graph: FlatGraph) -> list[tuple[str, str]]:
    return [(r, s) for _, s, readers in _stated_delays(graph) for r in readers]


def _classes(graph: FlatGraph, traced: SpikingGraph) -> tuple[str, ...]:
    text = graph.metadata.get("classes")
    if text is None or graph.metadata.get("format") != "neuroav-nir":
        return ()
    try:
        names = tuple(map(str, json.loads(str(text))))
    except (ValueError, TypeError):
        return ()
    return names if len(names) == int(np.prod(traced.shapes[traced.output])) else ()


# --- samples ---------------------------------------------------------------------------------
def _given(sample: Any, graph: FlatGraph) -> tuple[dict[str, np.ndarray], int]:
    """Return the sample by input, and its steps; a single array is of the only input."""
    if not isinstance(sample, Mapping) and len(graph.inputs) == 1:
        sample = {graph.inputs[0]: sample}
    if not isinstance(sample, Mapping) or set(sample) != set(graph.inputs):
        found = sorted(sample) if isinstance(sample, Mapping) else "one array"
        raise DataError(f"the sample holds {found}, the network reads {sorted(graph.inputs)}")
    table = {n: np.asarray(v) for n, v in sample.items()}
    for name, value in table.items():
        if value.ndim < 3 or 0 in value.shape:
            raise DataError(f"sample {name!r}: shape is {value.shape}, needs (samples, steps, ...)")
    if len({v.shape[:2] for v in table.values()}) != 1:
        raise DataError("the sample's arrays differ in their samples or steps")
    return table, next(iter(table.values())).shape[1]


def _shaped(given: Mapping[str, np.ndarray], graph: SpikingGraph) -> dict[str, np.ndarray]:
    """Return the sample on the axes of the graph's inputs; DataError where it does not fit."""
    found = {}
    for name, value in given.items():
        shape = graph.shapes[name]
        if int(np.prod(value.shape[2:])) != int(np.prod(shape)):
            raise DataError(
                f"sample {name!r}: values per step are {value.shape[2:]}, the input takes {shape}"
            )
        found[name] = value.reshape(*value.shape[:2], *shape)
    return found
