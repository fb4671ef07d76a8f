"""What forward does: its operations, traced past every module that fx cannot follow, and one run.

The compiler stops where fx does. Here such a module is taken whole and tracing starts again, so
that the rest of the network is still seen; the run tells the shapes behind what has no node.
"""

from __future__ import annotations

import linecache
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from neuroav.errors import UnsupportedModule
from neuroav.models.layers import PerStep
from neuroav.models.tracing import StepTracer
from neuroav_export.linting.findings import NETWORK, Findings
from neuroav_export.linting.rules import NEURON_PACKAGES
from neuroav_export.trace import FRAME_LAYERS, fx_graph, running_module

Shape = tuple[int, ...]
_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).parent.parent)  # the compiler
_MISSING = object()  # the value of an operation that could not run


def is_foreign_neuron(module: nn.Module) -> bool:
    """Return whether a module's class comes from a library of spiking neurons."""
    return type(module).__module__.partition(".")[0] in NEURON_PACKAGES


class LintTracer(StepTracer):
    """StepTracer that does not enter ``whole`` (qualified names) or other libraries' neurons.

    ``node.meta['line']`` says where in the user's code an operation is.
    """

    def __init__(self, whole: set[str]) -> None:
        super().__init__()
        self.whole = whole

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.whole or is_foreign_neuron(m):
            return True
        return super().is_leaf_module(m, module_qualified_name)

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_filename.startswith((_TORCH, _OURS)):
            frame = frame.f_back
        node.meta["line"] = _line(frame.f_code.co_filename, frame.f_lineno)
        return node


def _line(file: str, number: int) -> str:
    code = linecache.getline(file, number).strip()
    return (
        f"{Path(file).name} line {number}: {code}" if code else f"{Path(file).name} line {number}"
    )


def trace_around(module: nn.Module, findings: Findings) -> tuple[fx.Graph | None, set[str]]:
    """Return the operations of forward and the modules that had to be taken whole.

    The graph is None where fx cannot follow the root's own forward. Every place is a finding.
    """
    whole: set[str] = set()
    while True:
        tracer = LintTracer(whole)
        try:
            return fx_graph(module, tracer), whole
        except UnsupportedModule as error:
            place = running_module(tracer)
            cause = error.__cause__ or error
            text = f"forward cannot be traced: {_one_line(cause)}{_raised_in(cause)}"
            findings.add(place or NETWORK, error.rule, text)
            if not place or place in whole:
                return None, whole
            whole.add(place)


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{text[:200]} ..." if len(text) > 200 else text or type(error).__name__


def _raised_in(error: BaseException) -> str:
    """Return the last line of the user's own code that ``error`` passed, in brackets."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((_TORCH, _OURS))]
    return f" ({_line(own[-1].filename, own[-1].lineno or 0)})" if own else ""


@dataclass
class Seen:
    """What a run of forward showed. Shapes are whole tensors', (steps, samples, ...).

    nodes: output shape by operation, of the first tensor where there are several; tuples:
    operations that gave several; failed: what an operation raised; modules: output shape by
    qualified name; called: modules that were called; error: what forward raised as a whole.
    """

    nodes: dict[fx.Node, Shape] = field(default_factory=dict)
    tuples: set[fx.Node] = field(default_factory=set)
    failed: dict[fx.Node, str] = field(default_factory=dict)
    modules: dict[str, Shape] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)
    error: str = ""

    @property
    def ran(self) -> bool:
        """Whether every operation ran, so that ``called`` is complete."""
        return not (self.failed or self.error)


def run(module: nn.Module, graph: fx.Graph | None, tensors: Mapping[str, torch.Tensor]) -> Seen:
    """Run forward once and return what it showed; an operation that fails stops only its readers.

    tensors: (steps, samples, ...) by input name, in the order of forward's arguments.
    """
    seen, hooks = Seen(), []
    for name, child in module.named_modules():
        hooks.append(child.register_forward_pre_hook(lambda *_, name=name: seen.called.add(name)))
        hooks.append(
            child.register_forward_hook(
                lambda _m, _x, out, name=name: seen.modules.update(_shapes(name, out))
            )
        )
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of is a finding, or comes later
            if graph is None:
                module(*tensors.values())
            else:
                _Run(fx.GraphModule(module, graph), seen).run(*tensors.values())
    except Exception as error:  # whatever a user's forward raises
        seen.error = f"{_one_line(error)}{_raised_in(error)}"
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _shapes(key: Any, value: Any) -> dict[Any, Shape]:
    """Return {key: shape} of a tensor or of the first of several, {} for anything else."""
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    return {key: tuple(value.shape)} if isinstance(value, torch.Tensor) else {}


class _Run(fx.Interpreter):
    """Runs operation by operation; what cannot run is missing, and so is what reads it."""

    def __init__(self, module: fx.GraphModule, seen: Seen) -> None:
        super().__init__(module)
        self.seen = seen

    def run_node(self, n: fx.Node) -> Any:
        if any(self.env.get(source) is _MISSING for source in n.all_input_nodes):
            return _MISSING
        try:
            value = super().run_node(n)
        except Exception as error:  # whatever torch or a user's module raises
            value = self._per_step(n)
            if value is _MISSING:
                self.seen.failed[n] = _one_line(error)
        if isinstance(value, (tuple, list)):
            self.seen.tuples.add(n)
        elif isinstance(value, torch.Tensor) and value.is_floating_point():
            value = value.double()  # after a cast in forward; the layers are in float64
        self.seen.nodes.update(_shapes(n, value))
        return value

    def _per_step(self, n: fx.Node) -> Any:
        """Return what a layer of frames gives inside the PerStep that it lacks."""
        module = self.fetch_attr(str(n.target)) if n.op == "call_module" else None
        if not isinstance(module, FRAME_LAYERS):
            return _MISSING
        try:
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            return PerStep(module)(*args, **kwargs)
        except Exception:  # its finding is that it is outside PerStep
            return _MISSING
