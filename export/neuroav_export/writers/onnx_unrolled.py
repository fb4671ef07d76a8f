"""The integer graph in ONNX for whole samples: ``onnx_integer`` over all steps at once.

What has no state is computed for all steps of all samples together. Neurons with a state, and
populations that feed each other, are a Scan over the steps; the sums that reach them from outside
are computed before it.
"""

from __future__ import annotations

from neuroav import integer as ig
from neuroav.fixed import Arithmetic
from neuroav_export.writers import onnx_integer as parts
from neuroav_export.writers.onnx_build import Builder


class Unrolled:
    """All populations of a graph, added to a builder group by group."""

    def __init__(self, b: Builder, graph: ig.IntGraph, arith: Arithmetic) -> None:
        self.b, self.graph, self.arith = b, graph, arith
        self.messages: dict[str, str] = {}  # folded
        self.largest = {n: parts.first_reach(p, arith) for n, p in graph.populations.items()}

    def add(self) -> None:
        """Add everything: inputs, populations, class scores and the flag."""
        b, graph = self.b, self.graph
        for name, pop in graph.inputs.items():
            b.where = name
            self.messages[name] = b.check(b.fold(name, pop.shape), 0, pop.max_count, len(pop.shape))
        for group in graph.groups:
            if group[0] not in graph.inputs:
                self._group(group)
        for name in graph.order:
            if name not in graph.inputs:
                b.where = name
                b.unfold(name, self.messages[name], graph.populations[name].shape)
        b.where = graph.output
        b.answer(graph.output, graph.populations[graph.output].neurons)
        b.sample_flag()

    def _group(self, group: tuple[str, ...]) -> None:
        (name, *others), b = group, self.b
        pop, b.where = self.graph.populations[name], name
        if others or self.graph.loops(group) or not (parts.memoryless(pop) or pop.holds):
            self._frame_by_frame(group)
            return
        sums = [self._outside(name, port, group) for port in range(pop.ports)]
        if isinstance(pop, ig.IntTimeSum):
            self.messages[name], self.largest[name] = _time_sum(b, pop, sums[0], self.arith)
        elif isinstance(pop, ig.IntTemporalAttention):
            self.messages[name], self.largest[name] = _temporal_attention(b, pop, sums)
        else:
            self.messages[name], self.largest[name] = parts.frame(
                b, pop, sums, self._reach(pop), self.arith
            )

    def _reach(self, pop: ig.Population) -> list[int]:
        return [parts.port_reach(self.graph, pop, k, self.largest) for k in range(pop.ports)]

    def _outside(self, name: str, port: int, group: tuple[str, ...]) -> str:
        """Return the folded sum that reaches a port from outside its group, '' for none."""
        b, pop = self.b, self.graph.populations[name]
        b.where = name

        def read(p: ig.Projection) -> str:
            message, shape = self.messages[p.source], self.graph.populations[p.source].shape
            return b.late(message, shape, p.lag) if p.lag else message

        found = parts.port_parts(
            b, self.graph, pop, port, self.largest, read,
            lambda p: p.source not in group or not self.graph.loops(group),
        )  # fmt: skip
        return b.total(found) if found else ""

    def _frame_by_frame(self, group: tuple[str, ...]) -> None:
        """Add neurons with a state, or a loop of populations, as a Scan."""
        b, graph = self.b, self.graph
        feeds: dict[str, tuple[str, ig.Shape]] = {}
        for name in group:
            pop = graph.populations[name]
            for port in range(pop.ports):
                if found := self._outside(name, port, group):
                    feeds[f"{name}/sum{port}"] = (found, pop.shape)
        if not feeds:  # neurons that live on their biases: a Scan needs something to count steps
            source = next(iter(graph.inputs))
            feeds["steps"] = (self.messages[source], graph.populations[source].shape)
        b.where = group[0]
        self.messages.update(b.scan(feeds, lambda now: self._frame(group, now)))

    def _silence(self, now: dict[str, str], shape: ig.Shape) -> str:
        """Return the sums of a step in which nothing comes, int64 (batch, *shape)."""
        pop = next(iter(self.graph.inputs.values()))
        return parts.silence(self.b, now["steps"], len(pop.shape), shape)

    def _frame(self, group: tuple[str, ...], now: dict[str, str]):
        """Add one step of a group; return the message and shape of each population.

        now: the sums from outside by 'NAME/sumPORT'.
        """
        b, graph = self.b, self.graph
        lags: dict[str, int] = {}
        for name in group if graph.loops(group) else ():
            for p in graph.populations[name].projections:
                if p.source in group:
                    lags[p.source] = max(p.lag, lags.get(p.source, 0))
        late = {n: b.history(n, graph.populations[n].shape, k) for n, k in sorted(lags.items())}
        found: dict[str, tuple[str, ig.Shape]] = {}
        for name in group:
            pop, b.where = graph.populations[name], name
            sums = []
            for port in range(pop.ports):
                inside = parts.port_parts(
                    b, graph, pop, port, self.largest,
                    lambda p: late[p.source][p.lag - 1] if p.lag else found[p.source][0],
                    lambda p: p.source in lags,
                )  # fmt: skip
                outside = now.get(f"{name}/sum{port}")
                if not outside and not inside:  # driven by their bias alone
                    outside = self._silence(now, pop.shape)
                sums.append(b.total([outside, *inside] if outside else inside))
            message, self.largest[name] = parts.frame(b, pop, sums, self._reach(pop), self.arith)
            found[name] = (message, pop.shape)
        for name, states in late.items():
            b.remember(states, found[name][0])
        return found


def _time_sum(b: Builder, pop: ig.IntTimeSum, a: str, arith: Arithmetic) -> tuple[str, int]:
    top, axes = parts.payload(arith), len(pop.shape)
    weights = pop.step_weights(b.steps).reshape(-1, *[1] * (axes + 1))
    weighed = b.op("Mul", b.frames(a, pop.shape), b.constant(weights))
    total = b.op("ReduceSum", weighed, b.constant([0]), keepdims=0)
    flags = b.outside(total, -top, top, axes)
    b.flagged(b.repeated(flags, ()))
    if pop.shift:
        total = parts.shifted(b, total, pop.shift)
    return b.repeated(total, pop.shape), ig.shifted(top, pop.shift)


def _temporal_attention(
    b: Builder, pop: ig.IntTemporalAttention, sums: list[str]
) -> tuple[str, int]:
    split = (b.steps, -1, pop.heads, pop.head_channels, pop.tokens)
    q, k, v = (b.op("Cast", b.shaped(x, *split), to=b.types.FLOAT) for x in sums)
    state = parts.saturated(b, b.op("Einsum", k, v, equation="tbhin,tbhjn->bhijn"), pop.cap)
    counts = b.op("Einsum", q, state, equation="tbhin,bhijn->bhtjn")
    whole = b.op("Cast", parts.saturated(b, counts, pop.cap), to=b.types.INT64)
    largest = pop.cap or b.steps * pop.head_channels
    return from_heads(b, whole, pop.scrambled, pop.shape), largest


def from_heads(b: Builder, found: str, scrambled: bool, shape: ig.Shape) -> str:
    """Return temporal attention (batch, heads, steps, channels / heads, tokens) folded."""
    if scrambled:
        apart = b.shaped(found, 0, b.steps, *shape)
        slots = b.op("Transpose", apart, perm=[1, 0, *range(2, 2 + len(shape))])
    else:
        slots = b.op("Transpose", found, perm=[2, 0, 1, 3, 4])
    return b.shaped(slots, -1, *shape)
