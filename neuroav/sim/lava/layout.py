"""Axis order inside Lava against the canonical order of the project.

Populations are (channel, row, column); Lava's Conv wants the channel last, so inside Lava every
three-axis population is (row, column, channel). Flat populations are the same in both.
"""

from __future__ import annotations

import numpy as np

Shape = tuple[int, ...]


def inner_shape(shape: Shape) -> Shape:
    """Return the shape inside Lava of a population of canonical ``shape``."""
    return (*shape[1:], shape[0]) if len(shape) == 3 else shape


def inner(value: np.ndarray, axes: int) -> np.ndarray:
    """Move the channel of an array whose last ``axes`` axes are a population's to the end."""
    return np.moveaxis(value, -3, -1) if axes == 3 else value


def canonical(value: np.ndarray, axes: int) -> np.ndarray:
    """Undo ``inner``."""
    return np.moveaxis(value, -1, -3) if axes == 3 else value


def inner_columns(weight: np.ndarray, source: Shape) -> np.ndarray:
    """Reorder the columns of (out, in) weights to the neuron order of ``source`` inside Lava."""
    by_axis = inner(weight.reshape(-1, *source), len(source))
    return np.ascontiguousarray(by_axis.reshape(weight.shape))
