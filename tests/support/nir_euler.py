"""NIR's equations by forward Euler, step by step, from the ``nir`` package's own objects.

Independent of the project's reader: edges that meet are added, a late edge brings what its source
sent one step before, a membrane sees the current of its own step.
"""

from __future__ import annotations

from collections.abc import Collection
from graphlib import TopologicalSorter

import nir
import numpy as np
import torch
from torch.nn import functional

SPIKING = (nir.LIF, nir.CubaLIF, nir.IF, nir.Threshold)


def euler(
    graph: nir.NIRGraph,
    inputs: dict[str, np.ndarray],
    dt_s: float,
    late: Collection[tuple[str, str]] = (),
    reset: str = "value",
) -> dict[str, np.ndarray]:
    """Return every node's output (samples, steps, *shape), float64. late: (source, target)."""
    prompt = {n: [a for a, b in graph.edges if b == n and (a, b) not in late] for n in graph.nodes}
    order = list(TopologicalSorter(prompt).static_order())
    first = next(iter(inputs.values()))
    memory: dict[str, dict] = {n: {} for n in graph.nodes}
    before: dict[str, torch.Tensor] = {}
    values: dict[str, list[torch.Tensor]] = {n: [] for n in graph.nodes}
    for t in range(first.shape[1]):
        now: dict[str, torch.Tensor] = {}
        for name in order:
            node = graph.nodes[name]
            if isinstance(node, nir.Input):
                now[name] = torch.from_numpy(inputs[name][:, t].astype(np.float64))
                continue
            parts = [now[s] for s in prompt[name]]
            parts += [before[a] for a, b in late if b == name and t]
            if not parts:  # the first step of a node that reads late edges only
                parts = [torch.zeros(len(first), *_size(node), dtype=torch.float64)]
            now[name] = respond(node, sum(parts), dt_s, memory[name], reset)
        for name, value in now.items():
            values[name].append(value)
        before = now
    return {n: torch.stack(v, 1).numpy() for n, v in values.items()}


def _size(node: nir.NIRNode) -> tuple[int, ...]:
    return tuple(int(v) for v in next(iter(node.input_type.values())))


def respond(node, x: torch.Tensor, dt_s: float, memory: dict, reset: str) -> torch.Tensor:
    """Return a node's output (samples, *shape) of one step, by the equation in its docstring."""
    t = lambda a: torch.as_tensor(np.asarray(a, np.float64))  # noqa: E731
    if isinstance(node, (nir.Conv1d, nir.Conv2d)):
        conv = functional.conv2d if isinstance(node, nir.Conv2d) else functional.conv1d
        axes, pad = node.weight.ndim - 2, node.padding
        stride, dilation = (np.broadcast_to(v, axes).tolist() for v in (node.stride, node.dilation))
        extra = [d * (k - 1) for d, k in zip(dilation, node.weight.shape[2:], strict=True)]
        if isinstance(pad, str):
            sides = [(e // 2, e - e // 2) if pad == "same" else (0, 0) for e in extra]
        else:
            sides = [(int(p), int(p)) for p in np.broadcast_to(pad, axes)]
        x = functional.pad(x, [v for side in reversed(sides) for v in side])
        return conv(x, t(node.weight), t(node.bias), stride, 0, dilation, int(node.groups))
    if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
        window = [
            tuple(int(v) for v in np.broadcast_to(p, 2))
            for p in (node.kernel_size, node.stride, node.padding)
        ]
        divisor = 1 if isinstance(node, nir.SumPool2d) else None
        return functional.avg_pool2d(x, *window, divisor_override=divisor)
    if isinstance(node, (nir.Affine, nir.Linear)):
        return functional.linear(x, t(node.weight), t(getattr(node, "bias", np.zeros(1))))
    if isinstance(node, nir.Threshold):
        return (x > t(node.threshold)).double()
    if isinstance(node, nir.Scale):
        return x * t(node.scale)
    if isinstance(node, nir.Flatten):
        start, end = int(node.start_dim), int(node.end_dim)
        return x.flatten(start + 1 if start >= 0 else start, end + 1 if end >= 0 else end)
    if isinstance(node, nir.Delay):
        steps = round(float(np.asarray(node.delay).flat[0]) / dt_s)
        line = memory.setdefault("line", [torch.zeros_like(x)] * steps)
        line.append(x)
        return line.pop(0)
    if isinstance(node, nir.Output):
        return x
    return membrane(node, x, dt_s, memory, t, reset)


def membrane(node, x: torch.Tensor, dt_s: float, memory: dict, t, reset: str) -> torch.Tensor:
    """Return spikes, or the membrane where there is no threshold."""
    leak = t(getattr(node, "v_leak", 0.0))
    v = memory.get("v", leak * torch.ones_like(x))
    current = x
    if isinstance(node, (nir.CubaLIF, nir.CubaLI)):
        i = memory.get("i", torch.zeros_like(x))
        current = memory["i"] = i + dt_s / t(node.tau_syn) * (t(node.w_in) * x - i)
    if isinstance(node, (nir.IF, nir.I)):
        v = v + dt_s * t(node.r) * current
    else:
        tau = t(node.tau_mem if hasattr(node, "tau_mem") else node.tau)
        v = v + dt_s / tau * ((leak - v) + t(node.r) * current)
    memory["v"] = v
    if not isinstance(node, SPIKING):
        return v
    spikes = (v > t(node.v_threshold)).double()
    after = v - t(node.v_threshold) if reset == "subtract" else t(node.v_reset)
    memory["v"] = torch.where(spikes > 0, after, v)
    return spikes
