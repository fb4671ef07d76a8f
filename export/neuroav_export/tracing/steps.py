"""Any network of PyTorch and Norse -> SpikingGraph, by running forward once and watching it.

Loops over steps, states, lists of outputs and moved axes are ordinary Python here: the run shows
which layer was called at which step with what. Layers that have a node are taken whole, everything
else is watched operation by operation (``ops``). ``graph`` makes one node of all calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from neuroav import nodes as rn
from neuroav.errors import NeuroavError, UnsupportedModule
from neuroav.graph import SpikingGraph
from neuroav.models import layers
from neuroav_export.tracing import norse as of_norse
from neuroav_export.tracing import ops
from neuroav_export.tracing.as_float64 import SAMPLES, few, kept_float64
from neuroav_export.tracing.graph import GraphMaker, Site, check_membranes
from neuroav_export.tracing.layout import check_layout
from neuroav_export.tracing.modules import (
    CONVERTERS,
    Parts,
    convert,
    step_length,
)
from neuroav_export.tracing.values import (
    BATCH,
    FEATURE,
    TIME,
    Refused,
    Value,
    canonical,
    features,
    last_step,
    relative,
)

# What forward does with these is watched operation by operation.
WATCHED = (
    *(nn.Flatten, nn.Unflatten, nn.Identity, nn.Sequential, nn.ModuleList, nn.ModuleDict),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(nn.FeatureAlphaDropout, nn.AdaptiveAvgPool2d, nn.ReLU),
    *(layers.PerStep, layers.Add, layers.TimeMean, layers.TimeLast, layers.Steps),
    *(layers.WholeSample, layers.BatchFirst),
    *of_norse.CONTAINERS,
)
_LIBRARIES = ("torch", "norse")


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is taken whole: it has a node, or is one layer that has none."""
    if type(module) in WATCHED:
        return False
    return type(module) in CONVERTERS or type(module).__module__.split(".")[0] in _LIBRARIES


class Recorder(TorchFunctionMode):
    """Watches one run of forward and keeps what every layer was called with.

    steps, samples: of the sample. values: what tensors stand for. sites: layers and operations by
    node name. place: qualified name of the module whose forward runs.
    """

    def __init__(self, module: nn.Module, steps: int, samples: int) -> None:
        super().__init__()
        self.module, self.steps, self.samples = module, steps, samples
        self.names = {m: node_name(module, n) for n, m in module.named_modules()}
        self.qualified = {m: n for n, m in module.named_modules()}
        self.values: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.buffers: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.sites: dict[str, Site] = {}
        self.states: dict[str, Any] = {}
        self.keys: dict[tuple, list[str]] = {}  # operations of one kind: their sites
        self.stack: list[str] = []
        self.inside = False

    @property
    def place(self) -> str:
        return self.stack[-1] if self.stack else ""

    # --- the run -----------------------------------------------------------------------------
    def run(self, inputs: Mapping[str, torch.Tensor], nodes: Mapping[str, rn.Input]) -> Any:
        """Return what forward returns. inputs: (T, B, ...) by name, in the order of arguments."""
        for name, tensor in inputs.items():
            shape = nodes[name].shape
            self.sites[name] = Site(name, name, nodes[name], (), shape, shape, [(None, ())])
            axes = (TIME, BATCH, *[FEATURE] * len(shape))
            self.values[tensor] = Value({(name, 0): 1.0}, axes)
        try:
            with torch.no_grad(), self._watched(), self:
                return self.module(*inputs.values())
        except NeuroavError:
            raise
        except Exception as error:  # whatever a user's forward raises
            place = self.place or "the network"
            text = " ".join(str(error).split())[:300]
            raise UnsupportedModule(
                f"{place}: forward fails on the sample ({text}); it gets tensors (steps, samples, "
                "...) in float64",
                rule="fails",
            ) from error

    @contextmanager
    def _watched(self) -> Iterator[None]:
        changed = [m for m in self.module.modules() if "forward" not in m.__dict__]
        for m in changed:
            m.__dict__["forward"] = self._layer(m) if is_layer(m) else self._entered(m)
        try:
            yield
        finally:
            for m in changed:
                del m.__dict__["forward"]

    def _entered(self, module: nn.Module) -> Callable[..., Any]:
        forward, name = module.forward, self.qualified[module]

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.stack.append(name)
            out = forward(*args, **kwargs)
            self.stack.pop()  # an error leaves it, so that it tells where
            return out

        return watched

    def _layer(self, module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return forward(*args, **kwargs)
            self.inside = True
            self.stack.append(self.qualified[module])
            try:
                with torch._C.DisableTorchFunction():
                    out = forward(*args, **kwargs)
                    self._called(module, args, kwargs, out)
            finally:
                self.inside = False
            self.stack.pop()
            return out

        return watched

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = kept_float64(func, args, func(*args, **kwargs))
        if not self.inside:
            ops.watch(self, func, args, kwargs, out)
        return out

    # --- values ------------------------------------------------------------------------------
    def of(self, tensor: Any) -> Value | Refused | None:
        """Return what a tensor stands for, None for constants. A filled buffer is a sequence."""
        if not isinstance(tensor, torch.Tensor):
            return None
        if tensor in self.buffers:
            return self.buffers[tensor].value(self.steps)
        return self.values.get(tensor)

    def read(self, tensor: torch.Tensor) -> Value:
        """Return the value of an input of a layer; zeros that no layer gave are an empty one."""
        value = self.of(tensor)
        if isinstance(value, Refused):
            return self.mended(tensor, value)
        if value is not None:
            return value
        if bool((tensor != 0).any()):
            raise UnsupportedModule(
                f"{self.place or 'the network'}: reads a tensor of forward's own that is not 0; "
                "only inputs and layers give values",
                rule="parameter",
            )
        return Value({}, (BATCH, *[FEATURE] * (tensor.ndim - 1)))

    def unused(self, name: str) -> str:
        """Return a name for the node of an operation."""
        taken = {*self.sites, *self.names.values()}
        found, number = name, 1
        while found in taken:
            found, number = f"{name}_{number}", number + 1
        return found

    def mended(self, tensor: torch.Tensor, refused: Refused) -> Value:
        """Return what a refused tensor stands for when something reads it; raises its error."""
        raise refused.error

    def complain(self, error: NeuroavError) -> None:
        """Raise an error about a call that has a node all the same."""
        raise error

    # --- layers ------------------------------------------------------------------------------
    def _called(self, module: nn.Module, args: tuple, kwargs: dict, out: Any) -> None:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
        first = out[0] if isinstance(out, tuple) else out
        hidden = [s for s in ops.tensors_in(out) if s is not first]
        try:
            value: Value | Refused = self._layer_value(module, tensors, args, kwargs, first)
        except NeuroavError as error:
            near = [(t, self.of(t)) for t in tensors]
            value = Refused(error, tuple((t, v) for t, v in near if isinstance(v, Value)))
        for state in hidden:
            self.values[state] = Refused(
                UnsupportedModule(
                    f"{self.place}: its state is read; a chip sends spikes and class scores only",
                    rule="state",
                )
            )
        self.values[first] = value
        if isinstance(out, tuple):
            self.states[self.place] = out[1]

    def _layer_value(self, module, tensors, args, kwargs, out) -> Value:
        name, where = self.names[module], self.place
        norse = type(module).__module__.startswith("norse")
        node = (of_norse.convert_norse if norse else convert)(where, module)
        assert node is not None
        inputs = [self.read(t) for t in tensors]
        check_layout(where, module, inputs, tensors)
        if isinstance(node, rn.Delay):
            terms = {(s, lag + node.steps): c for (s, lag), c in inputs[0].terms.items()}
            return Value(terms, inputs[0].axes)
        dt_s = module.dt if norse else step_length(module)
        value = self.site(name, where, node, inputs, tensors, out, inputs[0].axes[: _lead(inputs)])
        self.sites[name].dt_s = float(dt_s) if dt_s is not None else None
        if norse:
            self._check_state(module, name, args, kwargs)
        return value

    def site(
        self,
        name: str,
        where: str,
        node: rn.Node | Parts,
        inputs: list[Value],
        tensors: list[torch.Tensor],
        out: torch.Tensor,
        lead: tuple[str, ...],
        shape: tuple[int, ...] | None = None,
    ) -> Value:
        """Return the output of a layer or operation, and add the call to its site.

        lead: the axes of steps and samples, which come first in the output. shape: of the node.
        """
        axes = (*lead, *[FEATURE] * (out.ndim - len(lead)))
        takes = tuple(
            features(v.axes, tuple(t.shape)) for v, t in zip(inputs, tensors, strict=True)
        )
        gives = features(axes, tuple(out.shape))
        site = self.sites.setdefault(
            name, Site(name, where, node, takes, gives, shape or canonical(gives))
        )
        if isinstance(site.converted, rn.Input):
            raise UnsupportedModule(
                f"{name}: is the name of a layer and of an input; rename one", rule="names"
            )
        step = self._step(site, inputs)
        site.calls.append((step, tuple(v.terms for v in inputs)))
        return Value({(name, 0 if step is None else step): 1.0}, axes)

    def _step(self, site: Site, inputs: list[Value]) -> int | None:
        """Return the step of the next call of a site, None for a whole sequence."""
        kinds = {v.sequence for v in inputs if v.terms}
        if len(kinds) > 1:
            raise UnsupportedModule(
                f"{site.where}: reads one step and all steps at once; take x[t] of both",
                rule="layout",
            )
        before = len(site.calls)
        if True in kinds:
            if before:
                raise self._twice(site)
            return None
        known = [last_step(v.terms) for v in inputs if v.terms]
        if not before:
            return max(known, default=0)
        last = site.calls[-1][0]
        if last is None or (known and max(known) == last and self._lagged(site, inputs, last)):
            raise self._twice(site)
        step = last + 1
        if known and max(known) > step:
            raise UnsupportedModule(
                f"{site.where}: is not called in step {step}; a layer runs in every step",
                rule="control-flow",
            )
        return step

    def _lagged(self, site: Site, inputs: list[Value], last: int) -> bool:
        """Return whether a call reads no later step than the call before it did."""
        before = [t for t in site.calls[-1][1] if t]
        return bool(before) and max(last_step(t) for t in before) == last

    def _twice(self, site: Site) -> UnsupportedModule:
        return UnsupportedModule(
            f"{site.where}: is called twice in a step; neurons and synapses on a chip "
            "cannot be shared, make a second module",
            rule="twice",
        )

    def _check_state(self, module: nn.Module, name: str, args: tuple, kwargs: dict) -> None:
        """Raise UnsupportedModule unless a neuron goes on from where it was in the step before."""
        given = args[1] if len(args) > 1 else kwargs.get("state")
        if len(self.sites[name].calls) == 1:
            start = of_norse.initial_state(module, args[0]) if given is not None else None
            right, found = given is None or of_norse.same_state(given, start), "starts elsewhere"
        else:
            right = given is not None and of_norse.same_state(given, self.states[self.place])
            found = f"gets {'no' if given is None else 'another'} state after its first step"
        if not right:
            self.complain(
                UnsupportedModule(
                    f"{self.place}: {found}; a neuron starts at rest and keeps its own state: "
                    "z, state = lif(x, state), with None at first",
                    rule="state",
                )
            )

    # --- the end -----------------------------------------------------------------------------
    def graph(self, out: Any) -> SpikingGraph:
        """Return the graph of what forward returned."""
        value = self._answer(out)
        maker = GraphMaker(self.sites, self.steps)
        lags = relative(value.terms, self.steps - 1)
        output = maker.over_time(lags, None)
        return check_membranes(maker.finish(output, _common_dt(maker.dt_s)))

    def _answer(self, out: Any) -> Value:
        if not isinstance(out, torch.Tensor):
            raise UnsupportedModule(
                "the module returns several values; return class scores only"
                + (_WRAPPED if isinstance(out, tuple) else ""),
                rule="outputs",
            )
        value = self.of(out)
        if isinstance(value, Refused):
            value = self.mended(out, value)
        if value is None or not value.terms:
            raise UnsupportedModule(
                "the network: returns what no layer gave; return class scores (B, K)", rule="end"
            )
        if value.sequence:
            raise UnsupportedModule(
                "the network: returns scores for every step; class scores are their mean, sum or "
                "last: scores.mean(0), or neuroav.models.layers.WholeSample(network)",
                rule="end",
            )
        return value


_WRAPPED = (
    "; neuroav.models.layers.Steps(network) runs a network of cells, WholeSample(network) takes "
    "the scores of one that runs over all steps"
)


_HIDDEN = ("layer", "lifted_module")  # what PerStep and Lift call the layer that they hold


def node_name(root: nn.Module, qualified: str) -> str:
    """Return a module's node name: its qualified name without that of PerStep or Lift."""
    found, module = [], root
    for part in filter(None, qualified.split(".")):
        hidden = isinstance(module, (layers.PerStep, of_norse.Lift)) and part in _HIDDEN
        module = module.get_submodule(part)
        if not hidden:
            found.append(part)
    return ".".join(found) or type(root).__name__.lower()


def _lead(inputs: list[Value]) -> int:
    """Return how many of the first axes are steps and samples."""
    return sum(1 for a in inputs[0].axes if a != FEATURE)


def _common_dt(found: Mapping[str, float]) -> float:
    if len(set(found.values())) != 1:
        raise UnsupportedModule(
            f"neuron layers need one common dt, found {dict(found) or 'none'}", rule="time-step"
        )
    return next(iter(found.values()))


def record(
    module: nn.Module, sample: Mapping[str, np.ndarray], nodes: Mapping[str, rn.Input]
) -> SpikingGraph:
    """Return the traced graph of a module by running it on the first two samples.

    Raises UnsupportedModule with the qualified name of what has no node.
    """
    recorder = Recorder(module, len(next(iter(sample.values()))), SAMPLES)
    return recorder.graph(recorder.run(few(sample), nodes))
