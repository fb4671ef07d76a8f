"""ONNX models run in ONNX Runtime or ONNX's own evaluator; networks made by hand for them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnxruntime
from strategies_intgraph import make_deployment

from neuroav import integer as ig
from neuroav.sim import reference
from neuroav.sim.trace import collect

LEVELS = onnxruntime.GraphOptimizationLevel


def session(model, level=LEVELS.ORT_ENABLE_ALL):
    """Return an ONNX Runtime session of a model, or of the file that holds it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = level
    given = model.SerializeToString() if hasattr(model, "SerializeToString") else str(model)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def metadata(model) -> dict[str, str]:
    return {p.key: p.value for p in model.metadata_props}


def loop(run, model, inputs, dtype=np.int64):
    """Feed frames and states; return outputs (samples, steps, *shape) by name, states as 'NAME/v'.

    run: (wanted names or None for all, feed) -> values.
    """
    states = json.loads(metadata(model)["states"])
    shapes = {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim[1:]] for i in model.graph.input
    }
    names = [o.name for o in model.graph.output]
    count, steps = next(iter(inputs.values())).shape[:2]
    state = {n: np.zeros((count, *shapes[n]), dtype) for n in states}
    frames: dict[str, list[np.ndarray]] = {n: [] for n in names}
    for t in range(steps):
        feed = {n: v[:, t].astype(dtype) for n, v in inputs.items()} | state
        for name, value in zip(names, run(None, feed), strict=True):
            frames[name].append(value)
        state = {n: frames[after][-1] for n, after in states.items()}
    return {n: np.stack(v, axis=1) for n, v in frames.items()}


def whole(run, model, inputs, dtype=np.int64):
    """Feed whole samples; return outputs by name."""
    names = [o.name for o in model.graph.output]
    feed = {n: v.astype(dtype) for n, v in inputs.items()}
    return dict(zip(names, run(None, feed), strict=True))


def by_reference(deployment, inputs) -> dict[str, np.ndarray]:
    """Return outputs, and voltages as 'v(NAME)', of the specification."""
    traces = list(reference.run(deployment, inputs, states=True))
    voltages = {f"v({n})": np.concatenate([t.states[n] for t in traces]) for n in traces[0].states}
    return collect(traces) | voltages


def aligned(populations: dict[str, ig.Population], output: str, steps: int):
    """Return a deployment of populations whose delays are set so that branches align."""
    graph = ig.IntGraph(populations, output, steps, 0.01, dict.fromkeys(populations, (1, 1)))
    found = {
        name: replace(
            pop,
            projections=tuple(
                replace(p, delay=graph.aligned_delay(name, p.source, p.lag))
                for p in pop.projections
            ),
        )
        if pop.projections
        else pop
        for name, pop in populations.items()
    }
    return make_deployment(found, output, steps)


def dense(source: str, weight, **options) -> ig.IntDense:
    return ig.IntDense(source, 0, np.asarray(weight, np.int64), 8, "mixed", **options)


def relay(source: str, weight: int, **options) -> ig.IntIdentity:
    return ig.IntIdentity(source, 0, weight, **options)


def lif(shape, projections, threshold=40, decay_u=4095, decay_v=1024, **options) -> ig.IntLif:
    zero, level = np.zeros(1, np.int64), np.asarray(threshold, np.int64)
    return ig.IntLif(shape, tuple(projections), zero, 0, level, decay_u, decay_v, **options)


def weights(seed: int, *shape: int, low: int = -20, high: int = 30) -> np.ndarray:
    """Return weights that synapses of mixed signs hold: even numbers."""
    return np.random.default_rng(seed).integers(low, high, shape) * 2


def recurrent():
    """Neurons that feed themselves and each other, late inputs, every kind of reset and leak."""
    rng = np.random.default_rng(0)
    per_neuron = rng.integers(0, 4095, 6)
    return aligned(
        {
            "in": ig.IntInput((4,), (), 3),
            "rec": lif(
                (6,),
                [dense("in", weights(1, 6, 4)), dense("rec", weights(2, 6, 6), lag=1)],
                decay_u=per_neuron,
                decay_v=rng.integers(0, 4096, 6),
                reset="subtract",
            ),
            "left": lif((6,), [relay("rec", 60), dense("right", weights(3, 6, 5), lag=3)]),
            "right": lif(
                (5,),
                [
                    dense("left", weights(4, 5, 6, low=0)),
                    dense("in", weights(5, 5, 4, low=0), lag=2),
                ],
                170,
            ),
            "sum": ig.IntSum((5,), (relay("right", 3), dense("sum", np.eye(5) * -2, lag=2))),
            "out": ig.IntReadout(
                (3,),
                (
                    dense("sum", weights(6, 3, 5)),
                    dense("left", weights(7, 3, 6), lag=1),
                    dense("rec", weights(8, 3, 6), lag=9),
                ),
                np.array([5, -3, 0]),
                1500,
                700,
                3,
            ),
        },
        "out",
        9,
    )


def transposed():
    """Sum pooling, a transposed convolution with everything odd, another shape by an identity."""
    kernel = weights(9, 4, 3, 3, 2)
    return aligned(
        {
            "in": ig.IntInput((2, 5, 6), (), 3),
            "pooled": ig.IntSum((2, 3, 3), (ig.IntPool("in", 0, (2, 2), (2, 2), (1, 0)),)),
            "flat": lif((18,), [relay("pooled", 4)], 60, decay_v=0, reset="subtract"),
            "back": lif((2, 3, 3), [relay("flat", 60)], decay_v=4096),
            "wide": ig.IntSum(
                (4, 3, 3),
                (
                    ig.IntConv2d(
                        "back", 0, weights(10, 4, 2, 1, 1), (1, 1), (0, 0), (1, 1), 1, 8, "mixed"
                    ),
                ),
            ),
            "up": ig.IntSum(
                (6, 5, 8),
                (
                    ig.IntConvTranspose2d(
                        "wide", 0, kernel, (2, 2), (1, 0), (0, 1), (1, 2), 2, 8, "mixed"
                    ),
                ),
            ),
            "spikes": lif((6, 5, 8), [relay("up", 1)], decay_v=2048),
            "out": ig.IntReadout((3,), (dense("spikes", weights(11, 3, 240)),), np.zeros(1, int)),
        },
        "out",
        5,
    )
