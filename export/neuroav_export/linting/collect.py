"""The compiler's tracing without its stop at the first error.

``Collector`` is ``trace.Builder`` with every error made a finding. What was refused is replaced by
what its rewrite would be, as far as that is known, so that later layers are judged as they would be
after the rewrite and one fault does not become many findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Container, Mapping

import numpy as np
from torch import fx, nn

from neuroav import nodes as rn
from neuroav.errors import NeuroavError, StageError, UnsupportedModule
from neuroav.graph import SpikingGraph
from neuroav_export.linting.findings import NETWORK, Findings
from neuroav_export.linting.recover import StandIn, inside_of, kind_of, mended
from neuroav_export.linting.rules import KINDS
from neuroav_export.linting.watch import Seen, Shape
from neuroav_export.trace import CONVERTERS, FUNCTIONS, Builder, Leaf, check_place, convert, leaves
from neuroav_export.tracing.modules import Converted, step_length

_SIZES = {"size", "dim", "numel", "getattr", "len", "ndimension"}  # they give no tensor
_PASSED_ON = ("normalisation", "softmax", "dropout")  # their rewrite leaves shape and kind alone


class _Unseen(Exception):
    """A value has no node and no known shape: only the classes of its readers can be checked."""


class Collector(Builder):
    """Builds as much of the graph as there is.

    whole: modules that were not entered, each with a finding of its own. ``qualified``: name in the
    module tree by node name, in the order of forward.
    """

    def __init__(
        self,
        module: nn.Module,
        sample: Mapping[str, np.ndarray],
        max_count: Mapping[str, int] | None,
        static: Collection[str],
        whole: Container[str],
        seen: Seen,
        findings: Findings,
    ) -> None:
        super().__init__(module, sample, max_count, static)
        self.whole, self.seen, self.findings = whole, seen, findings
        self.samples = next(iter(sample.values())).shape[1]
        self.qualified: dict[str, str] = {name: name for name in sample}
        self.visited: set[str] = set()
        self.sizes: set[fx.Node] = set()  # they give a number or a shape
        self.misplaced: set[fx.Node] = set()  # their output has another shape than their node
        self.node: fx.Node | None = None

    # --- one operation -----------------------------------------------------------------------
    def add(self, node: fx.Node) -> None:
        """Add what an operation becomes, or find why it cannot, and replace it."""
        self.node = node
        if node.op == "output":
            self._answer(node)
        elif node.op == "get_attr":
            self._parameter(node)
        elif not self._is_by_the_way(node):
            before = self.findings.errors
            try:
                super().add(node)
            except _Unseen:
                self._classes_only(node)
                self._stand_in_for(node)
            except NeuroavError as error:
                self._refused(node, error)
                self._stand_in_for(node)
            if self.findings.errors == before:
                self._compare_with_run(node)

    def _answer(self, node: fx.Node) -> None:
        try:
            super().add(node)
        except KeyError:
            pass  # what is returned has no node, for a reason that was found there
        except UnsupportedModule as error:
            self.findings.error(NETWORK, error)
            known = [self.names[n] for n in node.all_input_nodes if n in self.names]
            self.output = known[0] if known else ""

    def _parameter(self, node: fx.Node) -> None:
        """An operation that is refused names its line itself; else the parameter is at fault."""
        if any(user.op == "call_module" or user.target in FUNCTIONS for user in node.users):
            text = f"{node.target} is used in forward{_line(node)}"
            self.findings.add(self._owner(node), "parameter", text)

    def _is_by_the_way(self, node: fx.Node) -> bool:
        """Return whether an operation is no step of its own: a shape, or an item of a tuple."""
        if node.op not in ("call_function", "call_method"):
            return False
        if _name(node) in _SIZES or self.sizes.issuperset(node.all_input_nodes):
            self.sizes.add(node)
            return True
        if node in self.seen.failed:
            return False
        source = node.all_input_nodes[0] if node.all_input_nodes else None
        if source in self.seen.tuples:
            if source in self.names:
                self.names[node] = self.names[source]
            return True
        ran = all(n in self.seen.nodes for n in node.all_input_nodes)
        return ran and node not in self.seen.nodes  # gave a number or a size, no tensor

    def _refused(self, node: fx.Node, error: NeuroavError) -> None:
        owner = self._owner(node)
        if node.op == "placeholder":
            self.findings.error(NETWORK, error)
        elif node.op == "call_module":  # called with constants: beside the point if unsupported
            if all(type(leaf.module) in CONVERTERS for leaf in self._leaves(str(node.target))):
                self.findings.error(owner, error)
            self._classes_only(node)
        elif error.rule == "operation":
            text = f"{_name(node)} in forward cannot be traced{_line(node)}"
            self.findings.add(owner, KINDS.get(_name(node), "operation"), text)
        else:
            self.findings.error(self._named(node), error, node.name)

    def _classes_only(self, node: fx.Node) -> None:
        """Check what can be checked of an operation whose inputs have no node."""
        if node.op == "call_module":
            for leaf in self._leaves(str(node.target)):
                if leaf.qualified not in self.visited:
                    self._node_of(leaf)

    def _compare_with_run(self, node: fx.Node) -> None:
        """Find what runs otherwise than its node says: failures, and axes in another order."""
        if any(n in self.misplaced for n in node.all_input_nodes):
            self.misplaced.add(node)
            return
        layer = self._named(node)
        several = any(n in self.seen.tuples for n in node.all_input_nodes)
        if node in self.seen.failed and not (node.op == "placeholder" or several):
            self.findings.add(layer, "fails", f"fails on the sample: {self.seen.failed[node]}")
        if node not in self.names or node not in self.seen.nodes:
            return
        expected, actual = self.shapes[self.names[node]], self._features(self.seen.nodes[node])
        if expected != actual:
            self.misplaced.add(node)
            axes = ", ".join(map(str, (self.steps, self.samples, *expected)))
            text = f"gives a tensor of shape {self.seen.nodes[node]}, needed is ({axes})"
            self.findings.add(layer, "layout", text)

    # --- what the builder calls --------------------------------------------------------------
    def _sources(self, node: fx.Node, where: str) -> tuple[str, ...]:
        if node.op != "call_module":
            self.qualified[node.name] = self._named(node)
        try:
            return super()._sources(node, where)
        except KeyError:
            raise _Unseen from None

    def _check_call(self, target: str) -> None:
        try:
            super()._check_call(target)
        except UnsupportedModule as error:
            self.findings.error(target, error)

    def _leaves(self, target: str) -> list[Leaf]:
        """Return the leaves of a call; those of a second call are nodes of their own."""
        name, number = target, 1
        while any(other == name or other.startswith(f"{name}.") for other in self.nodes):
            number += 1
            name = f"{target} (call {number})"
        return leaves(target, self.modules[target], name)

    def _convert(self, leaf: Leaf, sources: tuple[str, ...]) -> str:
        node = self._node_of(leaf)
        if node is None:
            return sources[0]
        if isinstance(node, StandIn):
            actual = self._shape_of(leaf)
            if actual is None:
                raise _Unseen
            node = StandIn(1.0, shape=actual)
        return self._put_all(leaf.name, node, sources)

    def _node_of(self, leaf: Leaf) -> Converted:
        """Return a leaf's node, or what its rewrite would be, and find what is wrong with it."""
        self.visited.add(leaf.qualified)
        self.qualified[leaf.name] = leaf.qualified
        if leaf.qualified in self.whole:
            return StandIn(1.0)
        dt_s = step_length(leaf.module)
        if dt_s is not None:
            self.dt_s[leaf.name] = dt_s
        try:
            check_place(leaf)
        except UnsupportedModule as error:
            self.findings.error(leaf.qualified, error)
        try:
            return convert(leaf.qualified, leaf.module)
        except (UnsupportedModule, StageError) as error:
            rule = kind_of(leaf.module) if error.rule == "module" else error.rule
            self.findings.error(leaf.qualified, error, rule=rule)
            if rule == "block":
                inside_of(leaf.qualified, self.modules, self.seen, self.visited, self.findings)
            return self._rewritten(leaf, rule)

    def _rewritten(self, leaf: Leaf, rule: str) -> Converted:
        if rule in _PASSED_ON:
            return None
        module = mended(leaf.module, rule)
        if module is None:
            return StandIn(1.0)
        return self._node_of(Leaf(leaf.qualified, leaf.name, module, leaf.per_step))

    def _put(self, name: str, node: rn.Node, sources: tuple[str, ...]) -> str:
        try:
            return super()._put(name, node, sources)
        except StageError as error:
            self.findings.error(self.qualified.get(name, name), error, name)
            raise _Unseen from None

    # --- shapes and names --------------------------------------------------------------------
    def _features(self, shape: Shape) -> Shape | None:
        """Return the axes after steps and samples; None where the first axes are neither."""
        if shape[:2] == (self.steps, self.samples):
            return shape[2:]
        return shape[1:] if shape[:1] == (self.samples,) else None  # after a mean over time

    def _shape_of(self, leaf: Leaf) -> Shape | None:
        """Return the shape of a leaf's output per step and sample, as the run showed it."""
        if leaf.per_step:  # (steps * samples, ...)
            found = self.seen.modules.get(leaf.qualified)
            return None if found is None else found[1:]
        assert self.node is not None
        whole = self.seen.nodes.get(self.node)
        return None if whole is None else self._features(whole)

    def _stand_in_for(self, node: fx.Node) -> None:
        shape = self.seen.nodes.get(node)
        features = None if shape is None else self._features(shape)
        sources = tuple(self.names[n] for n in node.all_input_nodes if n in self.names)
        if features is not None:
            name = f"{node.name} (refused)"
            self.qualified[name] = self._named(node)
            self.names[node] = self._put(name, StandIn(1.0, shape=features), sources)

    def _owner(self, node: fx.Node) -> str:
        """Return the qualified name of the module called, or of that in whose forward we are."""
        stack = node.meta.get("nn_module_stack") or {}
        return next(reversed(stack.values()), (NETWORK,))[0] or NETWORK

    def _named(self, node: fx.Node) -> str:
        """Return the name of an operation's node, below the module in whose forward it is."""
        owner = self._owner(node)
        if node.op == "call_module":
            return owner
        return node.name if owner == NETWORK else f"{owner}.{node.name}"

    # --- the end -----------------------------------------------------------------------------
    def finish(self) -> SpikingGraph:
        """Return as much of the graph as there is; its output is '' where that is unknown."""
        try:
            self._check_inputs()
        except UnsupportedModule as error:
            self.findings.error(NETWORK, error)
        try:
            dt_s = self._common_dt()
        except UnsupportedModule as error:
            dt_s = self._several_dt(error)
        return SpikingGraph(self.nodes, self.inputs, self.shapes, self.output, dt_s, self.steps)

    def _several_dt(self, error: UnsupportedModule) -> float:
        """Find the layers whose dt is not the most common one, and return that."""
        if not self.dt_s:
            if not any(isinstance(n, StandIn) for n in self.nodes.values()):
                self.findings.error(NETWORK, error)
            return 1.0
        common = Counter(self.dt_s.values()).most_common(1)[0][0]
        for name, dt_s in self.dt_s.items():
            if dt_s != common:
                text = f"dt is {dt_s:g} s, that of other layers is {common:g} s"
                self.findings.add(self.qualified[name], error.rule, text)
        return common


def _name(node: fx.Node) -> str:
    """Return the name of a function or method, in lower case."""
    name = getattr(node.target, "__name__", str(node.target)).strip("_").lower()
    # torch hides some behind a dispatcher, fx names the node after what was called
    return name if name in KINDS or name in _SIZES else node.name.rstrip("0123456789").rstrip("_")


def _line(node: fx.Node) -> str:
    return f" ({node.meta['line']})"
