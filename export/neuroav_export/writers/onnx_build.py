"""Parts of ONNX models: operators, constants, whole-number weights, states, loops over steps.

A model under construction is a ``Builder``. Its methods return names of tensors. Tensors have the
batch first; a *folded* tensor holds all steps of all samples, (steps * batch, *shape), step by
step, so that whatever has no state works on a step and on a whole sample alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroav.errors import UnsupportedNode
from neuroav_export.writers.base import missing

OPSET, IR_VERSION = 18, 9  # of ONNX 1.14; later runtimes read them
FLAG, SCORES = "out_of_range", "scores"
_WRITTEN_OUT = 6  # constants of at most as many numbers bear them in their names, others a hash

Shape = tuple[int, ...]


def import_onnx() -> Any:
    """Return the onnx package; MissingDependency with the line that installs it."""
    try:
        import onnx
    except ImportError:
        raise missing("onnx") from None
    return onnx


def check_names(names: Mapping[str, object], taken: tuple[str, ...]) -> None:
    """Raise UnsupportedNode if a node bears the name of one of the model's own outputs."""
    for name in taken:
        if name in names:
            raise UnsupportedNode(
                f"{name}: an ONNX model of ours has an output of this name; rename the layer"
            )


@dataclass
class _Scope:
    """Operators of one graph, the states (name, shape) and the flags that arise in it."""

    nodes: list[Any] = field(default_factory=list)
    states: list[tuple[str, Shape]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)


class Builder:
    """An ONNX graph under construction. dtype: of messages and states, int64 or float32; steps:
    per sample, for models of whole samples."""

    def __init__(self, dtype: type, steps: int) -> None:
        onnx = import_onnx()
        self.helper, self.types = onnx.helper, onnx.TensorProto
        self._from_array = onnx.numpy_helper.from_array
        self.dtype, self.steps = np.dtype(dtype), steps
        self.element = self.helper.np_dtype_to_tensor_dtype(self.dtype)
        self.where = ""  # the node being built
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._whole: dict[tuple[str, int], str] = {}
        self._zeros: dict[Shape, str] = {}
        self._root = self._scope = _Scope()
        self._count = 0

    # --- operators and constants ---
    def op(self, kind: str, *inputs: str, result: str = "", **attributes: Any) -> str:
        """Add an operator; its result is called ``result`` or gets a name of its own."""
        self._count += 1
        result = result or f"{self.where}/{kind}.{self._count}"
        self._scope.nodes.append(self.helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def constant(self, value: Any, dtype: Any = np.int64) -> str:
        """Add a constant, named by its value; equal ones share one."""
        array: np.ndarray = np.asarray(value, dtype)
        if array.size <= _WRITTEN_OUT:
            value = ",".join(map(str, array.reshape(-1).tolist()))
        else:
            value = hashlib.sha256(array.tobytes()).hexdigest()[:16]
        name = f"{array.dtype}{list(array.shape)}({value})".replace(" ", "")
        if name not in self._constants:
            self._constants[name] = self._from_array(array, name)
        return name

    def number(self, value: Any) -> str:
        """Add a constant of the type of messages."""
        return self.constant(value, self.dtype)

    def whole(self, weight: np.ndarray) -> str:
        """Return whole numbers as float32, stored in 8 bits where a common factor makes them fit.

        Cast and Mul, not DequantizeLinear: runtimes take a product with dequantized weights as
        leave to quantize its other factor too, which is not exact.
        """
        stored, factor = narrowed(weight)
        name = self.constant(stored, stored.dtype)
        if (name, factor) not in self._whole:
            inside, self._scope = self._scope, self._root  # also where a loop reads it
            found = self.op("Cast", name, to=self.types.FLOAT)
            if factor != 1:
                found = self.op("Mul", found, self.constant(factor, np.float32))
            self._whole[name, factor] = found
            self._scope = inside
        return self._whole[name, factor]

    def convolved(self, x: str, weight: str, p: Any, *bias: str) -> str:
        """Return a convolution; p: what has its stride, padding, dilation and groups."""
        return self.op(
            "Conv",
            *(x, weight, *bias),
            strides=p.stride,
            pads=[*p.padding, *p.padding],
            dilations=p.dilation,
            group=p.groups,
        )

    def transposed(self, x: str, weight: str, p: Any) -> str:
        """Return a transposed convolution without bias; p: as for ``convolved``.

        What output_padding adds at the far ends is taken from the padding there; the rest are
        zeros, because runtimes refuse an output_padding as large as the stride.
        """
        far = [pad - extra for pad, extra in zip(p.padding, p.output_padding, strict=True)]
        found = self.op(
            "ConvTranspose",
            *(x, weight),
            strides=p.stride,
            pads=[*p.padding, *(max(0, v) for v in far)],
            dilations=p.dilation,
            group=p.groups,
        )
        if min(far) >= 0:
            return found
        return self.op("Pad", found, self.constant([0] * 6 + [max(0, -v) for v in far]))

    def pooled(self, x: str, ones: str, p: Any, channels: int) -> str:
        """Return the sums over windows, by kernels of ones."""
        pads = [*p.padding, *p.padding]
        return self.op("Conv", x, ones, strides=p.stride, pads=pads, group=channels)

    # --- what goes in and comes out ---
    def tensor(self, name: str, *shape: int | str, element: int | None = None) -> Any:
        """Return the description of a tensor of messages, or of another element type."""
        element = self.element if element is None else element
        return self.helper.make_tensor_value_info(name, element, list(shape))

    def state(self, register: str, shape: Shape) -> str:
        """Add a state of the node being built, 0 at first; ``keep`` gives it its next value."""
        name = f"{self.where}/{register}"
        self._scope.states.append((name, shape))
        return name

    def keep(self, state: str, value: str) -> None:
        """Let ``value`` be the next value of a state."""
        self.op("Identity", value, result=f"{state}_next")

    def history(self, source: str, shape: Shape, length: int) -> tuple[str, ...]:
        """Add states that hold a message 1, 2, ... ``length`` steps late, called NAME/late/K."""
        self.where = source
        return tuple(self.state(f"late/{k}", shape) for k in range(1, length + 1))

    def remember(self, states: tuple[str, ...], message: str) -> None:
        """Let ``message`` enter the states of a history."""
        for state, value in zip(states, (message, *states), strict=False):
            self.keep(state, value)

    def check(self, x: str, low: int, high: int, axes: int) -> str:
        """Return x; raise the flag of every sample with a value outside low..high."""
        self.flagged(self.outside(x, low, high, axes))
        return x

    def outside(self, x: str, low: int, high: int, axes: int) -> str:
        """Return for every sample whether x has a value outside low..high, bool (batch,)."""
        over = self.constant(range(1, axes + 1))
        least = self.op("ReduceMin", x, over, keepdims=0)
        most = self.op("ReduceMax", x, over, keepdims=0)
        below = self.op("Less", least, self.constant(low))
        return self.op("Or", below, self.op("Greater", most, self.constant(high)))

    def flagged(self, flags: str) -> None:
        """Add flags, bool (batch,)."""
        self._scope.flags.append(flags)

    def flag(self) -> str:
        """Return whether any check in this graph failed, bool (batch,)."""
        return self.total(self._scope.flags, "Or")

    def total(self, parts: list[str], kind: str = "Add") -> str:
        """Return the sum of tensors."""
        found = parts[0]
        for part in parts[1:]:
            found = self.op(kind, found, part)
        return found

    def shaped(self, x: str, *shape: int) -> str:
        """Return x with other axes; 0 keeps an axis, -1 takes what is left."""
        return self.op("Reshape", x, self.constant(shape))

    # --- one step ---
    def step_states(self) -> dict[str, str]:
        """Make the states inputs and outputs of the model; return {state: its next value}."""
        for name, shape in self._root.states:
            self.inputs.append(self.tensor(name, "batch", *shape))
            self.outputs.append(self.tensor(f"{name}_next", "batch", *shape))
        return {name: f"{name}_next" for name, _ in self._root.states}

    # --- whole samples ---
    def fold(self, name: str, shape: Shape) -> str:
        """Add the model's input ``name`` (batch, steps, *shape); return it folded."""
        self.inputs.append(self.tensor(name, "batch", self.steps, *shape))
        return self.shaped(self._swapped(name, shape), -1, *shape)

    def unfold(self, name: str, folded: str, shape: Shape) -> str:
        """Add the model's output ``name`` (batch, steps, *shape) and return it."""
        found = self._swapped(self.frames(folded, shape), shape)
        self.outputs.append(self.tensor(name, "batch", self.steps, *shape))
        return self.op("Identity", found, result=name)

    def _swapped(self, x: str, shape: Shape) -> str:
        return self.op("Transpose", x, perm=[1, 0, *range(2, 2 + len(shape))])

    def frames(self, folded: str, shape: Shape) -> str:
        """Return a folded tensor as (steps, batch, *shape)."""
        return self.shaped(folded, self.steps, -1, *shape)

    def late(self, folded: str, shape: Shape, steps: int) -> str:
        """Return a folded tensor so many steps late, with 0 in the first ones."""
        apart, axes = self.frames(folded, shape), len(shape) + 2
        padded = self.op("Pad", apart, self.constant([steps, *[0] * (2 * axes - 1)]))
        ends = [self.constant(v) for v in ([0], [self.steps], [0])]
        return self.shaped(self.op("Slice", padded, *ends), -1, *shape)

    def repeated(self, sample: str, shape: Shape) -> str:
        """Return what is (1, batch, *shape) in every step, folded."""
        every = self.constant([self.steps, *[1] * (len(shape) + 1)])
        return self.shaped(self.op("Expand", sample, every), -1, *shape)

    def answer(self, output: str, classes: int) -> None:
        """Add the class scores: the last step of the model's output."""
        last = self.constant(self.steps - 1)
        self.op("Gather", output, last, axis=1, result=SCORES)
        self.outputs.append(self.tensor(SCORES, "batch", classes))

    def sample_flag(self) -> None:
        """Add the model's flag: one bool per sample, whether any step had one."""
        self.where = FLAG
        steps = self.op("Cast", self.frames(self.flag(), ()), to=self.types.INT32)
        most = self.op("ReduceMax", steps, self.constant([0]), keepdims=0)
        self.op("Cast", most, to=self.types.BOOL, result=FLAG)
        self.outputs.append(self.tensor(FLAG, "batch", element=self.types.BOOL))

    def scan(
        self,
        feeds: Mapping[str, tuple[str, Shape]],
        frame: Callable[[dict[str, str]], dict[str, tuple[str, Shape]]],
    ) -> dict[str, str]:
        """Run ``frame`` step after step through a Scan; return its results folded, by name.

        feeds: folded tensors with their shape; ``frame`` gets the names of one step of each and
        returns tensors of the step with their shapes. States it adds start at 0 in each sample.
        """
        body, scope, shapes = self._body(feeds, frame)
        zeros = [self._zero(shape) for _, shape in scope.states]
        frames = [self.frames(value, shape) for value, shape in feeds.values()]
        names = [f"{self.where}/{key}.frames" for key in (*shapes, *scope.flags[:1])]
        node = self.helper.make_node(
            "Scan",
            [*zeros, *frames],
            [*(f"{name}.last" for name, _ in scope.states), *names],
            body=body,
            num_scan_inputs=len(frames),
        )
        self._scope.nodes.append(node)
        if scope.flags:
            self.flagged(self.shaped(names[-1], -1))
        found = zip(shapes.items(), names, strict=False)
        return {key: self.shaped(name, -1, *shape) for (key, shape), name in found}

    def _body(self, feeds, frame) -> tuple[Any, _Scope, dict[str, Shape]]:
        """Return the graph of one step of a Scan, its scope, and the shapes of its results."""
        where = self.where
        taken = {key: f"{where}/{key}.now" for key in feeds}
        outside, self._scope = self._scope, _Scope()
        found = frame(dict(taken))
        self.where = where
        given = [(self.op("Identity", value), shape) for value, shape in found.values()]
        flag = [self.op("Identity", self.flag())] if self._scope.flags else []
        inside, self._scope = self._scope, outside
        body = self.helper.make_graph(
            inside.nodes,
            f"{where}/frame",
            [self.tensor(n, "batch", *s) for n, s in inside.states]
            + [self.tensor(taken[key], "batch", *s) for key, (_, s) in feeds.items()],
            [self.tensor(f"{n}_next", "batch", *s) for n, s in inside.states]
            + [self.tensor(n, "batch", *s) for n, s in given]
            + [self.tensor(n, "batch", element=self.types.BOOL) for n in flag],
        )
        return body, inside, {key: shape for key, (_, shape) in found.items()}

    def _zero(self, shape: Shape) -> str:
        """Return zeros (batch, *shape)."""
        if shape not in self._zeros:
            batch = self.op("Shape", self.inputs[0].name, start=0, end=1)
            size = self.op("Concat", batch, self.constant(shape), axis=0) if shape else batch
            value = self._from_array(np.zeros(1, self.dtype))
            self._zeros[shape] = self.op("ConstantOfShape", size, value=value)
        return self._zeros[shape]

    def model(self, graph: str, text: str, props: Mapping[str, str]) -> Any:
        """Return the finished ``onnx.ModelProto``."""
        made = self.helper.make_model(
            self.helper.make_graph(
                self._root.nodes, graph, self.inputs, self.outputs, list(self._constants.values())
            ),
            opset_imports=[self.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="neuroav",
            doc_string=text,
        )
        self.helper.set_model_props(made, dict(props))
        return made


def narrowed(weight: np.ndarray) -> tuple[np.ndarray, int]:
    """Return (integers, factor) whose product is ``weight``: int8 or uint8 where that is possible
    by a factor of plus or minus a power of two, else int16 or int32."""
    bits = int(np.bitwise_or.reduce(np.abs(weight), axis=None))
    factor = max(1, bits & -bits)
    low, high = int(weight.min(initial=0)) // factor, int(weight.max(initial=0)) // factor
    for dtype, sign in ((np.int8, 1), (np.uint8, 1), (np.uint8, -1), (np.int16, 1)):
        least, most = sorted((sign * low, sign * high))
        span = np.iinfo(dtype)
        if span.min <= least and most <= span.max:
            return (weight // (sign * factor)).astype(dtype), sign * factor
    return (weight // factor).astype(np.int32), factor
