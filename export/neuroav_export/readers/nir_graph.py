"""A NIR graph without graphs in it: nested ones opened, wires removed, loops given their delay.

NIR is written in continuous time and says nothing of the order within a step. A loop needs one: its
feedback is what the neurons sent in the step before, as in snnTorch, Norse and SpikingJelly. A loop
that holds a NIR ``Delay`` of at least a step has it already. In any other the connections back into
the loop's first node (the nearest to an input; among equals, the first that an edge names) are
late by one step, directly behind the neurons they come from.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from neuroav.errors import FileFormatError, UnsupportedNode
from neuroav.graph import execution_groups
from neuroav_export.readers.nir_file import NAME_MOST, Edge, Primitive

SPIKING = ("LIF", "CubaLIF", "IF")
STATEFUL = (*SPIKING, "LI", "CubaLI", "I")
Late = frozenset[tuple[str, str]]  # (reader, source)


@dataclass(frozen=True, eq=False)
class FlatGraph:
    """primitives: by name, ``OUTER.INNER`` for nested ones; sources: who feeds each, in the order
    of the edges; inputs: names of the inputs; answer: the node whose value is the answer.
    declared: the Output node, None where there is none. repeated: how many edges are stated twice.
    mentioned: all names in the order in which the edges name them.
    """

    primitives: Mapping[str, Primitive]
    sources: Mapping[str, tuple[str, ...]]
    inputs: tuple[str, ...]
    answer: str
    declared: Primitive | None
    repeated: int
    mentioned: tuple[str, ...]
    metadata: Mapping[str, object] = field(default_factory=dict)

    def readers(self, name: str) -> int:
        """Return how many nodes read ``name``; being the answer counts."""
        return sum(name in s for s in self.sources.values()) + (name == self.answer)


def flatten(root: Primitive, output: str | None = None) -> FlatGraph:
    """Return a graph with all nested graphs opened. output: which Output, where there are several.

    FileFormatError for edges to nowhere and names that collide; UnsupportedNode for several
    outputs. Nodes that do not lead to the output are left out.
    """
    work = _Opener()
    work.open(root, "")
    edges = list(dict.fromkeys(work.edges))
    sources: dict[str, list[str]] = {name: [] for name in work.nodes}
    for source, target in edges:
        sources[target].append(source)
    inner = {n for n, p in work.nodes.items() if p.kind in ("Input", "Output") and n in work.inner}
    plain = {
        n: tuple(dict.fromkeys(_through(s, sources, inner)))
        for n, s in sources.items()
        if n not in inner
    }
    answer, declared = _answer(work.nodes, plain, output)
    kept = _upstream(plain, answer)
    plain = {n: s for n, s in plain.items() if n in kept}
    primitives = {n: work.nodes[n] for n in plain}
    for root_name in [n for n, s in plain.items() if not s and primitives[n].kind != "Input"]:
        added = _unused(f"input_{root_name}", work.nodes)  # as nir itself calls it
        primitives[added], plain[added] = Primitive("Input", {}), ()
        plain[root_name] = (added,)
    inputs = tuple(n for n, p in primitives.items() if p.kind == "Input")
    if not inputs:
        raise FileFormatError("the graph has no input that leads to its output; add an Input node")
    for name in inputs:
        if plain[name]:
            raise FileFormatError(f"{name}: is an Input and read from {plain[name]}; remove that")
    repeated = len(work.edges) - len(edges)
    mentioned = tuple(n for n in dict.fromkeys([*sum(edges, ()), *plain]) if n in plain)
    return FlatGraph(
        primitives, plain, inputs, answer, declared, repeated, mentioned, root.metadata
    )


class _Opener:
    """Collects the nodes and edges of a graph and all graphs in it, under their full names."""

    def __init__(self) -> None:
        self.nodes: dict[str, Primitive] = {}
        self.edges: list[Edge] = []
        self.inner: set[str] = set()

    def open(self, graph: Primitive, prefix: str) -> None:
        for name, node in graph.nodes.items():
            full = prefix + name
            if full in self.nodes or len(full) > 2 * NAME_MOST:
                raise FileFormatError(
                    f"{full[:NAME_MOST]}: names two nodes, or is too long; rename"
                )
            if node.is_graph:
                self.open(node, f"{full}.")
            else:
                self.nodes[full] = node
                if prefix:
                    self.inner.add(full)
        for source, target in graph.edges:
            ends = (self._end(graph, prefix, source, "Output"),
                    self._end(graph, prefix, target, "Input"))  # fmt: skip
            self.edges.append(ends)

    def _end(self, graph: Primitive, prefix: str, name: str, port: str) -> str:
        """Return the full name of an end of an edge; port: which side of a nested graph it is."""
        node, path = graph.nodes.get(name), name
        if node is None:  # 'OUTER.INNER', as older exporters wrote it
            outer = next((o for o in _prefixes(name) if o in graph.nodes), None)
            inner = graph.nodes[outer] if outer else None
            if outer is None or inner is None or not inner.is_graph:
                known = ", ".join(sorted(graph.nodes)[:12])
                raise FileFormatError(
                    f"{prefix}{name}: an edge names it, the graph has {known}; remove the edge"
                )
            return self._end(inner, f"{prefix}{outer}.", name[len(outer) + 1 :], port)
        if not node.is_graph:
            return prefix + path
        ports = [n for n, p in node.nodes.items() if p.kind == port]
        if len(ports) != 1:
            raise UnsupportedNode(
                f"{prefix}{name}: is a graph with {len(ports)} {port} nodes; an edge of NIR cannot "
                f"say which one it means, so one is allowed; give it one {port}"
            )
        return f"{prefix}{name}.{ports[0]}"


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1))


def _through(names: list[str], sources: Mapping[str, list[str]], wires: set[str]) -> Iterator[str]:
    """Yield the nodes that feed something, inputs and outputs of nested graphs followed back."""
    waiting, seen = list(reversed(names)), set()
    while waiting:
        name = waiting.pop()
        if name not in wires:
            yield name
        elif name not in seen:
            seen.add(name)
            waiting += reversed(sources[name])


def _answer(
    nodes: Mapping[str, Primitive], sources: dict[str, tuple[str, ...]], wanted: str | None
) -> tuple[str, Primitive | None]:
    """Take the outputs out of ``sources``; return what the chosen one reads, and itself."""
    outputs = {n: s for n, s in sources.items() if nodes[n].kind == "Output"}
    read = {s for part in sources.values() for s in part}
    if blocked := sorted(outputs.keys() & read):
        raise FileFormatError(f"{blocked[0]}: is an Output and read by a node; remove that edge")
    for name in outputs:
        del sources[name]
    ends: dict[str, tuple[str, ...]] = outputs or {n: (n,) for n in sources if n not in read}
    if wanted is not None and wanted not in ends:
        raise UnsupportedNode(f"{wanted}: is no output of the graph, it has {sorted(ends)}")
    chosen = [wanted] if wanted is not None else list(ends)
    if len(chosen) != 1:
        raise UnsupportedNode(
            f"the graph has {len(chosen)} outputs ({', '.join(sorted(chosen)[:8])}), needs one; "
            "name it by output=NAME"
        )
    (name,) = chosen
    if len(ends[name]) != 1:
        raise UnsupportedNode(
            f"{name}: {len(ends[name])} nodes feed the output, needs one; add them by a Scale of 1"
        )
    return ends[name][0], nodes[name] if outputs else None


def _upstream(sources: Mapping[str, tuple[str, ...]], name: str) -> set[str]:
    seen, waiting = {name}, [name]
    while waiting:
        for source in sources[waiting.pop()]:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return seen


def _unused(wanted: str, taken: Collection[str]) -> str:
    while wanted in taken:
        wanted += "_"
    return wanted


# --- loops -----------------------------------------------------------------------------------
def late_edges(graph: FlatGraph, delays: Collection[str], late: Late = frozenset()) -> Late:
    """Return the edges that carry what their source sent one step before, as (reader, source).

    delays: NIR delays of at least a step. late: edges that are late already. UnsupportedNode for a
    loop without neurons.
    """
    found = set(late)
    depth, first = _depths(graph), {n: i for i, n in enumerate(graph.mentioned)}
    while True:
        prompt = {
            n: tuple(s for s in sources if (n, s) not in found and n not in delays)
            for n, sources in graph.sources.items()
        }
        every = [(n, s) for n, sources in prompt.items() for s in sources]
        loops = [g for g in execution_groups(prompt, every) if len(g) > 1 or g[0] in prompt[g[0]]]
        if not loops:
            return frozenset(found)
        for loop in loops:
            entry = min(loop, key=lambda n: (depth.get(n, len(first)), first[n]))
            found |= _behind_neurons(graph, prompt, loop, entry)


def _depths(graph: FlatGraph) -> dict[str, int]:
    """Return how many edges away from an input each node is."""
    depth = dict.fromkeys(graph.inputs, 0)
    readers: dict[str, list[str]] = {n: [] for n in graph.sources}
    for name, sources in graph.sources.items():
        for source in sources:
            readers[source].append(name)
    waiting = list(graph.inputs)
    for name in waiting:  # grows while it is walked: breadth first
        for reader in readers[name]:
            if reader not in depth:
                depth[reader] = depth[name] + 1
                waiting.append(reader)
    return depth


def _behind_neurons(
    graph: FlatGraph, prompt: Mapping[str, tuple[str, ...]], loop: Collection[str], entry: str
) -> set[tuple[str, str]]:
    """Return the edges out of neurons on the loop's ways back into ``entry``."""
    found, seen, waiting = set(), {entry}, [entry]
    while waiting:
        name = waiting.pop()
        for source in prompt[name]:
            if source not in loop:
                continue
            if graph.primitives[source].kind in STATEFUL:
                found.add((name, source))
            elif source not in seen:
                seen.add(source)
                waiting.append(source)
    if not found:
        names = ", ".join(sorted(loop)[:6])
        raise UnsupportedNode(
            f"{entry}: lies on a loop without neurons or delay ({names}); NIR has no value for it; "
            "put a Delay of a time step into the loop"
        )
    return found
