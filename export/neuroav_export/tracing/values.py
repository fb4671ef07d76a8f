"""What a tensor of a running network stands for: which layers at which steps, on which axes.

Forward is run once on the sample. Every tensor in it is a sum of outputs of layers (``Terms``), and
every axis of it is time, samples or features. Operations that only move axes change ``axes``,
sums and constant factors change ``terms``; neither makes a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch

from neuroav.errors import NeuroavError, UnsupportedModule

Shape = tuple[int, ...]
Key = tuple[str, int]  # (site, step) in a frame, (site, lag) in a sequence
Terms = Mapping[Key, float]

TIME, BATCH, FEATURE = "T", "B", "F"


@dataclass(frozen=True)
class Value:
    """What one tensor holds.

    terms: factor by (site, step), the sum of which it is. axes: for every axis 'T' (steps), 'B'
    (samples), 'F' (features) or both of the first two, 'TB' or 'BT'. sequence: all steps are in it
    and the second half of a key is a lag in steps instead.
    """

    terms: Terms
    axes: tuple[str, ...]

    @property
    def sequence(self) -> bool:
        return any(TIME in a for a in self.axes)

    def on(self, axes: tuple[str, ...]) -> Value:
        """Return the same terms on other axes."""
        return Value(self.terms, axes)


@dataclass(frozen=True)
class Refused:
    """A tensor that nothing on a chip stands for; the error is raised where something reads it.

    near: tensors with a value from which it was made.
    """

    error: NeuroavError
    near: tuple[tuple[torch.Tensor, Value], ...] = ()


def features(axes: tuple[str, ...], sizes: Shape) -> Shape:
    """Return the sizes of the feature axes."""
    return tuple(n for a, n in zip(axes, sizes, strict=True) if a == FEATURE)


def canonical(shape: Shape) -> Shape:
    """Return a node's shape for features of ``shape``: (n,), (C, 1, L) for (C, L) or (C, H, W)."""
    if len(shape) == 2:
        return (shape[0], 1, shape[1])
    return shape if len(shape) in (1, 3) else (prod(shape),)


def frame(value: Value, axes: tuple[str, ...], step: int) -> Value:
    """Return what a sequence holds at one step; ``axes`` are those that are left."""
    return Value({(s, step - lag): c for (s, lag), c in value.terms.items() if step >= lag}, axes)


def total(terms_and_factors: list[tuple[Terms, float]]) -> dict[Key, float]:
    """Return the weighted sum of several terms, without those that cancel."""
    found: dict[Key, float] = {}
    for terms, factor in terms_and_factors:
        for key, c in terms.items():
            found[key] = found.get(key, 0.0) + factor * c
    return {k: c for k, c in found.items() if c != 0.0}


def over_time(value: Value, steps: int, factor: float, axes: tuple[str, ...]) -> Value:
    """Return ``factor`` times the sum of a sequence over its steps."""
    frames = [(frame(value, axes, t).terms, factor) for t in range(steps)]
    return Value(total(frames), axes)


def relative(terms: Terms, step: int) -> dict[Key, float]:
    """Return terms of a frame with the lag behind ``step`` in place of the step."""
    return {(site, step - at): c for (site, at), c in terms.items()}


def last_step(terms: Terms) -> int:
    """Return the latest step in the terms of a frame."""
    return max(at for _, at in terms)


def begun(lags: Terms, step: int) -> dict[Key, float]:
    """Return the part of ``lags`` that exists at a step: nothing is before step 0."""
    return {(site, lag): c for (site, lag), c in lags.items() if lag <= step}


def as_sequence(frames: list[Terms], steps: int) -> dict[Key, float] | None:
    """Return the terms by lag of which ``frames`` are all steps in order, None if they are not."""
    if len(frames) != steps:
        return None
    lags = relative(frames[-1], steps - 1)
    for step, terms in enumerate(frames):
        if relative(terms, step) != begun(lags, step):
            return None
    return lags if all(lag >= 0 for _, lag in lags) else None


# --- axes --------------------------------------------------------------------------------------
def reshaped(
    axes: tuple[str, ...], sizes: Shape, new: Shape, steps: int, samples: int
) -> tuple[str, ...] | None:
    """Return the axes after a reshape in C order; None where it tears time or samples, or joins
    them with features."""
    left = _atoms(axes, sizes, steps, samples)
    found: list[str] = []
    for size in new:
        axis = _take(left, size)
        if axis is None:
            return None
        found.append(axis)
    return None if left else tuple(found)


def _atoms(axes: tuple[str, ...], sizes: Shape, steps: int, samples: int) -> list[tuple[str, int]]:
    """Return (kind, size) of all axes, merged ones apart, neighbouring features as one."""
    found: list[tuple[str, int]] = []
    for axis, size in zip(axes, sizes, strict=True):
        if axis != FEATURE:
            found += [(kind, steps if kind == TIME else samples) for kind in axis]
        elif size > 1 and found and found[-1][0] == FEATURE:
            found[-1] = (FEATURE, found[-1][1] * size)
        elif size > 1:
            found.append((FEATURE, size))
    return found


def _take(left: list[tuple[str, int]], size: int) -> str | None:
    """Return the axis of ``size`` that the first atoms make, which it takes from ``left``."""
    if left and left[0][0] == FEATURE and left[0][1] % size == 0:
        rest = left[0][1] // size
        left[:1] = [(FEATURE, rest)] if rest > 1 else []
        return FEATURE
    kinds, have = "", 1
    while left and left[0][0] != FEATURE and have * left[0][1] <= size:
        kind, n = left.pop(0)
        kinds, have = kinds + kind, have * n
    if have != size:
        return None
    return kinds if kinds in (TIME, BATCH, "TB", "BT") else (FEATURE if not kinds else None)


def order_of(move: Callable[..., torch.Tensor], ndim: int) -> tuple[int, ...]:
    """Return which axis of the input each axis of the output is; ``move`` only moves axes."""
    marked = torch.empty(tuple(range(2, 2 + ndim)), device="meta")
    return tuple(n - 2 for n in move(marked).shape)


def refuse(text: str, rule: str) -> UnsupportedModule:
    """Return the error for an operation; the recorder puts its place before it."""
    return UnsupportedModule(text, rule=rule)
