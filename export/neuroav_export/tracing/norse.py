"""Norse's neurons -> nodes, for norse 1.1: cells of one step, layers of all steps, recurrent ones.

Update order, as ``norse.torch.functional`` has it (lif.py, lif_box.py, iaf.py,
leaky_integrator.py): the current takes the input of the step, the membrane follows the new current,
the spike follows the new membrane, and only then the current decays. So an input acts in its own
step, and a recurrent spike one step later. Parameters are those of the float32 numbers Norse
computes with: a rate is ``dt * tau_inv`` rounded by torch, and tau in seconds follows from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import norse.torch as norse
import numpy as np
import torch
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.snn import SNN, SNNCell, SNNRecurrent, SNNRecurrentCell
from torch import nn

from neuroav import nodes as rn
from neuroav.errors import StageError, UnsupportedModule
from neuroav.models import layers
from neuroav_export.tracing.modules import INPUT, Converted, Part, Parts, array, one_or_each

_RESETS = {reset_value: "value", reset_subtract: "subtract", layers.reset_detached: "value"}


def time_constant_s(dt_s: float, inverse: Any) -> float | np.ndarray:
    """Return tau in seconds so that dt / tau is the rate that torch computes."""
    rate = one_or_each(dt_s * torch.as_tensor(inverse))
    if not np.all(np.asarray(rate) > 0):
        raise UnsupportedModule(
            f"a time constant is the inverse of {inverse}, must be positive", rule="time-constant"
        )
    return dt_s / rate


def _lif(m: SNNCell | SNN | SNNRecurrentCell | SNNRecurrent) -> rn.Lif:
    p = m.p
    return rn.Lif(
        time_constant_s(m.dt, p.tau_mem_inv),
        one_or_each(p.v_th),
        one_or_each(p.v_reset),
        one_or_each(p.v_leak),
        tau_syn_s=time_constant_s(m.dt, p.tau_syn_inv),
    )


def _lif_box(m: norse.LIFBoxCell) -> rn.Lif:
    p = m.p
    if p.reset_method not in _RESETS:
        name = getattr(p.reset_method, "__name__", p.reset_method)
        raise UnsupportedModule(
            f"reset_method is {name}; use norse.torch.reset_value or reset_subtract", rule="reset"
        )
    return rn.Lif(
        time_constant_s(m.dt, p.tau_mem_inv),
        one_or_each(p.v_th),
        one_or_each(p.v_reset),
        one_or_each(p.v_leak),
        reset=_RESETS[p.reset_method],
    )


def _iaf(m: norse.IAFCell | norse.IAF) -> rn.If:
    """Norse starts at v_reset; counted from there the membrane starts at 0."""
    v_th, v_reset = one_or_each(m.p.v_th), one_or_each(m.p.v_reset)
    return rn.If(v_th - v_reset)


def _li(m: norse.LICell | norse.LI | norse.LILinearCell) -> rn.Li:
    p = m.p
    tau_mem, tau_syn = time_constant_s(m.dt, p.tau_mem_inv), time_constant_s(m.dt, p.tau_syn_inv)
    return rn.Li(_one("tau_mem_inv", tau_mem), _leak(p), _one("tau_syn_inv", tau_syn))


def _li_box(m: norse.LIBoxCell) -> rn.Li:
    tau_mem = time_constant_s(m.dt, m.p.tau_mem_inv)
    return rn.Li(_one("tau_mem_inv", tau_mem), _leak(m.p))


def _leak(p: Any) -> float:
    return _one("v_leak", one_or_each(p.v_leak))


def _one(name: str, value: float | np.ndarray) -> float:
    if isinstance(value, np.ndarray):
        raise UnsupportedModule(
            f"{name} holds {value.size} values; the leaky integrators of a layer share one",
            rule="neuron-parameters",
        )
    return value


def _li_linear(m: norse.LILinearCell) -> Parts:
    synapses = Part("input", rn.Dense(array(m.input_weights)), (INPUT,))
    return Parts((synapses, Part("", _li(m), ("input",))))


def _recurrent(m: norse.LIFRecurrentCell | norse.LIFRecurrent) -> Parts:
    return Parts(
        (
            Part("input", rn.Dense(array(m.input_weights)), (INPUT,)),
            Part("delay", rn.Delay(1), ("",), like="input"),
            Part("recurrent", rn.Dense(array(m.recurrent_weights)), ("delay",)),
            Part("current", rn.Add(), ("input", "recurrent")),
            Part("", _lif(m), ("current",)),
        )
    )


CELLS: dict[type[nn.Module], Callable[[Any], Converted]] = {
    norse.LIFCell: _lif,
    norse.LIFBoxCell: _lif_box,
    norse.IAFCell: _iaf,
    norse.LICell: _li,
    norse.LIBoxCell: _li_box,
    norse.LILinearCell: _li_linear,
    norse.LIFRecurrentCell: _recurrent,
}
SEQUENCES: dict[type[nn.Module], Callable[[Any], Converted]] = {
    norse.LIF: _lif,
    norse.IAF: _iaf,
    norse.LI: _li,
    norse.LIFRecurrent: _recurrent,
}
Lift = norse.Lift
CONTAINERS = (norse.SequentialState, Lift)
_INSTEAD = "norse.torch.LIFCell, LIFBoxCell, IAFCell, LIFRecurrentCell, LICell or LIBoxCell"


def convert_norse(qualified: str, module: nn.Module) -> Converted:
    """Return the nodes of a Norse neuron; UnsupportedModule with its qualified name."""
    converter = CELLS.get(type(module)) or SEQUENCES.get(type(module))
    if converter is None:
        raise UnsupportedModule(
            f"{qualified}: {type(module).__name__} has no neuron on the chip; use {_INSTEAD}",
            rule="neuron",
        )
    try:
        return converter(module)
    except (UnsupportedModule, StageError) as error:
        raise error.at(qualified) from None


def is_cell(module: nn.Module) -> bool:
    """Return whether a module is a neuron of Norse that takes one step, with its state."""
    return isinstance(module, (SNNCell, SNNRecurrentCell, norse.LILinearCell))


def initial_state(module: nn.Module, x: torch.Tensor) -> Any:
    """Return the state from which Norse's neuron starts at input x."""
    if isinstance(module, norse.LILinearCell):
        zeros = torch.zeros(len(x), module.hidden_size, dtype=x.dtype)
        return norse.LIState(v=module.p.v_leak.detach(), i=zeros)
    return module.state_fallback(x)  # type: ignore[operator]


def same_state(a: Any, b: Any) -> bool:
    """Return whether two states hold the same numbers; one number may stand for all."""
    try:
        pairs = list(zip(a, b, strict=True))
        return len(pairs) > 0 and all(bool((torch.as_tensor(x) == y).all()) for x, y in pairs)
    except (TypeError, ValueError, RuntimeError):  # no state of this neuron
        return False
