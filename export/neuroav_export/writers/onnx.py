"""ONNX: the deployed integers or the real-valued twin, one time step or a whole sample.

A model of one step has the neurons' states going in and coming out. A run is a loop over frames
that feeds every ``STATE_next`` back as ``STATE``; states start at 0. A model of whole samples
('unrolled') takes (batch, steps, *shape) and gives the class scores too.

Every population is computed in its own time frame, as in ``neuroav.sim.reference``: the one step
per projection and the delays that align branches are removed; lags stay.

The integers are the reference's bit for bit (``onnx_integer`` says how), and the flag
``out_of_range`` is true where an event count or a register left its range and the other executors
raise. A runtime that rounds inside a sum (TF32, Winograd) is not exact. The real-valued twin is
float32 (``onnx_real``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, unknown_name
from neuroav.files import written_whole
from neuroav_export.writers import onnx_integer, onnx_real
from neuroav_export.writers.base import Written, facts
from neuroav_export.writers.onnx_build import (
    FLAG,
    IR_VERSION,
    OPSET,
    SCORES,
    Builder,
    check_names,
    import_onnx,
)
from neuroav_export.writers.onnx_unrolled import Unrolled

__all__ = ["FLAG", "FORMS", "IR_VERSION", "NUMBERS", "OPSET", "SCORES", "make_model", "write"]
FORMS, NUMBERS = ("step", "unrolled"), ("integer", "float")
VERSION = 1
CONSUMES = "integer"
CARRIES = {
    "IntInput": "graph input `NAME`: event counts",
    "IntHostCurrent": "graph input `NAME`: what `Deployment.counts` gives",
    "IntLif": "`fixed.lif_step` in int64; states `NAME/u`, `NAME/v` where a decay leaves any",
    "IntOr": "Greater than 0",
    "IntSum": "the sum of its projections",
    "IntReadout": "Add to the state `NAME/v`, leaky ones also to `NAME/u`; its last step's value "
    "holds the class scores",
    "IntConv2d": "Conv in float32, proved exact",
    "IntConvTranspose2d": "ConvTranspose in float32, proved exact",
    "IntDense": "MatMul in float32, proved exact",
    "IntIdentity": "Mul in int64, Reshape",
    "IntPool": "Conv with unit weights",
    "IntSpatialSum": "ReduceSum in int64",
    "IntAnd": "Greater than 1",
    "IntProduct": "Mul in int64; a shift by Sub of Mod, then Div, which rounds down",
    "IntTimeSum": "Mul by the step weights, ReduceSum in int64; unrolled form only",
    "IntWinner": "ArgMax of the flattened sum, which gives the first among equals; Equal",
    "IntSpatialAttention": "two Einsum in float32, proved exact, saturated by Min",
    "IntTemporalAttention": "two Einsum over the steps in float32, proved exact, saturated by Min; "
    "unrolled form only",
    "IntSpread": "Expand",
    "IntPlace": "Pad with zeros",
}
UNSUPPORTED: dict[str, str] = {}
ALSO = (onnx_real,)  # further tables of what is carried


def write(
    deployment: Deployment, path: str | Path, *, form: str = "step", numbers: str = "integer"
) -> Written:
    """Write a model of ``deployment``, checked by ONNX's own checker and strict shape inference.

    form: 'step' or 'unrolled'; numbers: 'integer' or 'float'. Raises ConfigError for others,
    OutOfRange where no split of a layer's messages makes its sums exact in float32, UnsupportedNode
    for what one step cannot answer, and MissingDependency.
    """
    onnx = import_onnx()
    model = make_model(deployment, form, numbers)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    with written_whole(path) as temporary:
        temporary.write_bytes(model.SerializeToString())
    graph = deployment.integer if numbers == "integer" else deployment.real
    return Written("onnx", Path(path), graph.order, {}, deployment.content_hash)


def make_model(deployment: Deployment, form: str = "step", numbers: str = "integer") -> Any:
    """Return the ``onnx.ModelProto`` that ``write`` writes; arguments as there."""
    for kind, value, known in (("form", form, FORMS), ("numbers", numbers, NUMBERS)):
        if value not in known:
            raise unknown_name(kind, value, known, ConfigError)
    whole, steps = form == "unrolled", deployment.integer.steps
    if numbers == "integer":
        check_names(deployment.integer.populations, (FLAG, SCORES) if whole else (FLAG,))
        b = Builder(np.int64, steps)
        states = _integer(b, deployment, whole)
    else:
        check_names(deployment.real.nodes, (SCORES,) if whole else ())
        b = Builder(np.float32, steps)
        states = _real(b, deployment, whole)
    text = "A whole sample" if whole else "One time step"
    return b.model(
        form,
        f"{text} of a spiking network; see the metadata and docs/formats.md.",
        _metadata(deployment, form, numbers, states),
    )


def _integer(b: Builder, deployment: Deployment, whole: bool) -> dict[str, str]:
    graph, arith = deployment.integer, deployment.profile.arithmetic
    if whole:
        Unrolled(b, graph, arith).add()
        return {}
    onnx_integer.step(b, graph, arith)
    b.where = FLAG
    flag = b.flag()
    states = b.step_states()
    b.op("Identity", flag, result=FLAG)
    b.outputs.append(b.tensor(FLAG, "batch", element=b.types.BOOL))
    return states


def _real(b: Builder, deployment: Deployment, whole: bool) -> dict[str, str]:
    if whole:
        onnx_real.unrolled(b, deployment.real)
        return {}
    onnx_real.step(b, deployment.real)
    return b.step_states()


def _metadata(
    deployment: Deployment, form: str, numbers: str, states: dict[str, str]
) -> dict[str, str]:
    known = facts(deployment, f"neuroav-onnx-{form}", VERSION) | {
        "numbers": numbers,
        "time": "each node in its own time frame: projection steps and branch delays removed",
        "states": json.dumps(states),
        "scores": "the output at the last of `steps` steps; states are 0 before the first",
    }
    if numbers == "float":
        return known | {
            "output": deployment.real.output,
            "values": "real numbers as trained, batch norm folded; not the integers deployed",
        }
    return known | {
        "values": "quantized integers, as deployed; nothing is dequantized",
        "scales": json.dumps({n: list(s) for n, s in deployment.integer.scales.items()}),
        "flag": f"{FLAG}: a count or register left its range; nothing is valid from there on",
    }
