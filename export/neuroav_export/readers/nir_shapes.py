"""Fields of NIR primitives as checked numbers, and the shapes of what flows between them.

Shapes here are NIR's: per step, without a batch axis. Ours have one axis or three: ``ours``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuroav.errors import FileFormatError, NeuroavError, UnsupportedNode
from neuroav_export.readers.nir_file import Primitive
from neuroav_export.readers.nir_graph import STATEFUL, FlatGraph

Shape = tuple[int, ...]
Pair = tuple[int, int]
MOST_NEURONS = 1 << 24  # of one node: what a declared shape may claim
_SPREAD = (*STATEFUL, "Scale", "Threshold", "Delay")  # as many values out as in


def ours(shape: Shape) -> Shape:
    """Return a shape on one axis, or on (channel, row, column)."""
    return (shape[0], 1, shape[1]) if len(shape) == 2 else shape


def numbers(p: Primitive, place: str, name: str, default: float | None = None) -> np.ndarray:
    """Return a field as finite float64; FileFormatError where it is missing or anything else."""
    value = p.values.get(name)
    if value is None and default is not None:
        return np.array(default, np.float64)
    if not isinstance(value, np.ndarray) or value.size == 0:
        found = "is missing" if value is None else "holds no numbers"
        raise FileFormatError(
            f"{place}: {p.kind} field {name!r} {found}; NIR needs numbers there; write it again"
        )
    array = np.asarray(value, np.float64)
    wrong = int((~np.isfinite(array)).sum())
    if wrong:
        hint = "; a neuron without leak is NIR's IF" if name.startswith("tau") else ""
        raise FileFormatError(
            f"{place}: {wrong} of {array.size} values of {name} are NaN or infinite; allowed are "
            f"finite numbers{hint}; train or export the network again"
        )
    return array


def whole(p: Primitive, place: str, name: str, least: int, default: int | None = None) -> int:
    """Return a field as one whole number from ``least``."""
    return wholes(p, place, name, least, 1, default)[0]


def wholes(
    p: Primitive, place: str, name: str, least: int, count: int, default: int | None = None
) -> tuple[int, ...]:
    """Return ``count`` whole numbers; a single one stands for all."""
    array = numbers(p, place, name, default).reshape(-1)
    fits = array.size in (1, count) and (array == np.rint(array)).all()
    if not fits or array.min() < least or array.max() > MOST_NEURONS:
        raise FileFormatError(
            f"{place}: {name} is {array[:4].tolist()}, must be {count} whole number(s) from {least}"
        )
    found = tuple(int(v) for v in array)
    return found * count if len(found) == 1 else found


def two(p: Primitive, place: str, name: str, least: int, default: int | None = None) -> Pair:
    """Return two whole numbers from ``least``; a single one stands for both."""
    first, second = wholes(p, place, name, least, 2, default)
    return first, second


def spread(array: np.ndarray, shape: Shape, place: str, name: str) -> np.ndarray:
    """Return a neuron parameter as one number () or as an array of ``shape``.

    A single value stands for all neurons; leading axes of length 1, a batch's, are dropped.
    """
    if array.size == 1:
        return array.reshape(())
    while array.ndim > len(shape) and array.shape[0] == 1:
        array = array[0]
    try:
        found = np.broadcast_to(array, shape)
    except ValueError:
        raise FileFormatError(
            f"{place}: {name} has shape {array.shape}, its input {shape}; allowed is one value per "
            "neuron or one for all; export the layer with the shape of its input"
        ) from None
    return found[(0,) * len(shape)] if (found == found.flat[0]).all() else found


def declared(p: Primitive, *names: str) -> Shape | None:
    """Return the shape that a field states, None where it states none or holds unknown sizes."""
    value: Any = None
    for name in names:
        value = p.values.get(name) if value is None else value
    if isinstance(value, Mapping):
        value = next(iter(value.values()), None)
    if not isinstance(value, np.ndarray) or value.ndim > 1:
        return None
    sizes = [float(v) for v in np.atleast_1d(value)]
    if not sizes or any(s != round(s) or s < 1 for s in sizes):
        return None
    return tuple(int(s) for s in sizes)


def check_size(shape: Shape, place: str) -> Shape:
    """Return a shape of 1 to 3 axes, batch axes of length 1 dropped; FileFormatError otherwise."""
    while len(shape) > 3 and shape[0] == 1:
        shape = shape[1:]
    if not 1 <= len(shape) <= 3 or np.prod(shape, dtype=np.float64) > MOST_NEURONS:
        raise FileFormatError(
            f"{place}: shape is {shape}; allowed are (features,), (channels, length) or (channels, "
            f"rows, columns) of at most {MOST_NEURONS} values, without a batch axis"
        )
    return shape


def infer(graph: FlatGraph, given: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return NIR's shape of every node's output. given: of inputs whose shape the file lacks.

    From the inputs on, and back from layers to inputs without a shape. FileFormatError lists what
    cannot be worked out.
    """
    shapes: dict[str, Shape] = {}
    for name in graph.inputs:
        stated = declared(graph.primitives[name], "shape", "input_type") or given.get(name)
        stated = stated or _wanted(graph, name)
        if stated is None:
            raise FileFormatError(
                f"{name}: the file states no shape for this input, and what reads it has none; "
                "give input_shapes={NAME: SHAPE}"
            )
        shapes[name] = check_size(stated, name)
    waiting = [n for n in graph.sources if n not in shapes]
    while waiting:
        left = [n for n in waiting if not _try(graph, n, shapes)]
        if len(left) == len(waiting):
            raise FileFormatError(
                f"the shapes of {', '.join(sorted(left)[:6])} cannot be worked out; export the "
                "graph with the shapes of its neurons and convolutions"
            )
        waiting = left
    return shapes


def _try(graph: FlatGraph, name: str, shapes: dict[str, Shape]) -> bool:
    known = [shapes[s] for s in graph.sources[name] if s in shapes]
    found = out_shape(graph.primitives[name], name, known[0] if known else None)
    if found is not None:
        shapes[name] = found
    return found is not None


def _wanted(graph: FlatGraph, name: str) -> Shape | None:
    """Return the shape that the readers of an input ask for."""
    for reader, sources in graph.sources.items():
        p = graph.primitives[reader]
        if name not in sources:
            continue
        if p.kind in ("Affine", "Linear"):
            return (numbers(p, reader, "weight").shape[-1],)
        if p.kind in ("Conv1d", "Conv2d") and (places := declared(p, "input_shape")):
            groups = whole(p, reader, "groups", 1, 1)
            return (numbers(p, reader, "weight").shape[1] * groups, *places)
        if p.kind in _SPREAD:
            shape = np.shape(next(iter(p.values.values()), 0.0))
            return shape or None
        if p.kind == "Flatten":
            return declared(p, "input_type")
    return None


def out_shape(p: Primitive, place: str, source: Shape | None) -> Shape | None:
    """Return the output shape of a primitive, None where its source's must be known first."""
    if p.kind in ("Affine", "Linear"):
        return (matrix(p, place).shape[0],)
    if p.kind not in _OUT and p.kind not in _SPREAD:
        raise UnsupportedNode(
            f"{place}: is a {p.kind}; NIR's primitives that can be read are "
            f"{', '.join(sorted((*_OUT, *_SPREAD, 'Affine', 'Linear')))}; replace it"
        )
    if source is None:
        return None
    try:
        return source if p.kind in _SPREAD else _OUT[p.kind](p, place, source)
    except NeuroavError:
        raise
    except (ValueError, OverflowError) as error:
        raise FileFormatError(f"{place}: {p.kind} does not fit {source}: {error}") from None


def matrix(p: Primitive, place: str) -> np.ndarray:
    """Return the weights of Affine or Linear, (out, in)."""
    weight = numbers(p, place, "weight")
    while weight.ndim > 2 and weight.shape[0] == 1:
        weight = weight[0]
    if weight.ndim != 2:
        raise UnsupportedNode(
            f"{place}: weight has shape {weight.shape}, (out, in) is allowed; NIR's stacks of "
            "matrices have no layer here: write one node per matrix"
        )
    return weight


def kernel(p: Primitive, place: str) -> np.ndarray:
    """Return the weights of a convolution, (out, in / groups, rows, columns)."""
    weight, axes = numbers(p, place, "weight"), 4 if p.kind == "Conv2d" else 3
    if weight.ndim != axes:
        raise FileFormatError(f"{place}: weight has shape {weight.shape}, needs {axes} axes")
    return weight if axes == 4 else weight[:, :, None, :]


def geometry(p: Primitive, place: str) -> tuple[np.ndarray, Pair, Pair, Pair]:
    """Return kernel (4 axes), stride, padding and dilation of a convolution, padding in numbers.

    'same' with an even kernel pads one more at the end: a row of zeros in front of the kernel.
    """
    weight, flat = kernel(p, place), p.kind == "Conv1d"

    def pair(name: str, least: int, default: int) -> Pair:
        if flat:
            return (default, whole(p, place, name, least, default))
        return two(p, place, name, least, default)

    stride, dilation = pair("stride", 1, 1), pair("dilation", 1, 1)
    padding = p.values.get("padding")
    if not isinstance(padding, str):
        return weight, stride, pair("padding", 0, 0), dilation
    if padding not in ("same", "valid"):
        raise FileFormatError(
            f"{place}: padding is {padding[:40]!r}, allowed: same, valid, numbers"
        )
    if padding == "valid":
        return weight, stride, (0, 0), dilation
    if stride != (1, 1):
        raise UnsupportedNode(
            f"{place}: padding 'same' with stride {stride} has no meaning all agree on; write the "
            "padding in numbers"
        )
    for axis in (2, 3):
        if weight.shape[axis] % 2 == 0 and dilation[axis - 2] % 2:
            if dilation[axis - 2] > 1:
                raise UnsupportedNode(
                    f"{place}: padding 'same' of a kernel of {weight.shape[axis]} with dilation "
                    f"{dilation[axis - 2]} is uneven; use an odd kernel, or padding in numbers"
                )
            front = [(0, 0)] * 4
            front[axis] = (1, 0)
            weight = np.pad(weight, front)
    rows, columns = (d * (k - 1) // 2 for d, k in zip(dilation, weight.shape[2:], strict=True))
    return weight, stride, (rows, columns), dilation


def pooling(p: Primitive, place: str) -> tuple[Pair, Pair, Pair]:
    """Return kernel, stride and padding of a pooling."""
    window = two(p, place, "kernel_size", 1)
    stride = window if p.values.get("stride") is None else two(p, place, "stride", 1)
    return window, stride, two(p, place, "padding", 0, 0)


def _windows(size: int, k: int, stride: int, padding: int, dilation: int, place: str) -> int:
    found = (size + 2 * padding - dilation * (k - 1) - 1) // stride + 1
    if found < 1 or found > MOST_NEURONS:
        raise FileFormatError(
            f"{place}: a window of {k} with padding {padding}, dilation {dilation} gives {found} "
            f"places on an axis of {size}; use one that fits"
        )
    return found


def _conv(p: Primitive, place: str, source: Shape) -> Shape:
    weight, stride, padding, dilation = geometry(p, place)
    groups, axes = whole(p, place, "groups", 1, 1), 3 if p.kind == "Conv2d" else 2
    if len(source) != axes or source[0] != weight.shape[1] * groups or len(weight) % groups:
        raise FileFormatError(
            f"{place}: {p.kind} weight {weight.shape} with {groups} groups does not fit its input "
            f"{source}; its channels must be {weight.shape[1] * groups}, on {axes} axes"
        )
    stated = declared(p, "input_shape")
    if stated is not None and stated != source[1:]:
        raise FileFormatError(
            f"{place}: input_shape is {stated}, its input has {source[1:]}; make them equal"
        )
    sizes = ours(source)[1:]
    found = tuple(
        _windows(*v, place)
        for v in zip(sizes, weight.shape[2:], stride, padding, dilation, strict=True)
    )
    return (len(weight), *(found if axes == 3 else found[1:]))


def _pool(p: Primitive, place: str, source: Shape) -> Shape:
    if len(source) != 3:
        raise FileFormatError(f"{place}: {p.kind} needs (channels, rows, columns), reads {source}")
    window, stride, padding = pooling(p, place)
    if any(2 * b > k for b, k in zip(padding, window, strict=True)):
        raise UnsupportedNode(f"{place}: padding {padding} is over half of its window {window}")
    size = zip(source[1:], window, stride, padding, strict=True)
    return (source[0], *(_windows(n, k, s, b, 1, place) for n, k, s, b in size))


def _flatten(p: Primitive, place: str, source: Shape) -> Shape:
    """NIR counts axes without the batch; files whose input_type has one more count it too."""
    start = whole(p, place, "start_dim", -8, 1)
    end = whole(p, place, "end_dim", -8, -1)
    stated = p.values.get("input_type")
    stated = next(iter(stated.values()), None) if isinstance(stated, Mapping) else stated
    if isinstance(stated, np.ndarray) and stated.size == len(source) + 1:
        start, end = (v - 1 if v > 0 else v for v in (start, end))
    first = start + len(source) if start < 0 else start
    last = end + len(source) if end < 0 else end
    if len(source) == 1 or first >= len(source):
        return source
    if not 0 <= first <= last < len(source):
        raise FileFormatError(
            f"{place}: flattens axes {start} to {end} of {source}; needs axes it has, in order"
        )
    middle = int(np.prod(source[first : last + 1]))
    return (*source[:first], middle, *source[last + 1 :])


_OUT = {
    "Conv1d": _conv,
    "Conv2d": _conv,
    "SumPool2d": _pool,
    "AvgPool2d": _pool,
    "Flatten": _flatten,
}
