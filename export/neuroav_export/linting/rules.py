"""What a network on a chip cannot have: one literal table of rules with why and the rewrite.

The checks themselves are where the compiler raises them; an error names its rule
(``NeuroavError.rule``). ``docs/lint.md`` is printed from here by ``rules_table``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from neuroav_export.tracing.kinds import KINDS, NEURON_PACKAGES

__all__ = ["KINDS", "NEURON_PACKAGES", "RULES", "Rule", "Severity", "rules_table"]

Severity = Literal["error", "note"]


@dataclass(frozen=True)
class Rule:
    """found: what is in the network; why: it cannot be deployed; rewrite: what to write instead."""

    found: str
    why: str
    rewrite: str
    severity: Severity = "error"


_ONE_LAYER = "a neuron on a chip has one set of synapses and one state"
_FEED = "the chip knows neurons, synapses and sums, nothing that moves or combines tensors"

RULES: dict[str, Rule] = {
    # --- modules and operations that have no neuron and no synapse
    "activation": Rule(
        "an activation that is no neuron: ReLU, GELU, sigmoid, tanh, ...",
        "a neuron on a chip sends spikes, not real values",
        "`Lif()` in its place, outside `PerStep`, and train again",
    ),
    "softmax": Rule(
        "softmax",
        "it divides by a sum over neurons, and no neuron divides",
        "drop it: `cross_entropy` takes the scores of `TimeMean`; `SpatialAttention` and "
        "`MaskAttention` need none",
    ),
    "normalisation": Rule(
        "layer, group, instance or RMS norm",
        "it needs the mean of every sample while it runs; a chip has only fixed weights and biases",
        "`nn.BatchNorm2d` between convolution and `Lif`: it is folded into the weights",
    ),
    "attention": Rule(
        "multi-head attention, transformer layers, products of matrices in forward",
        "queries, keys and values are real numbers there; synapses multiply a spike by a weight",
        "`SpatialAttention(heads)` of three `Lif` outputs q, k, v, or `MaskAttention()`, then "
        "`Lif`; `neuroav.models.scmrl` has both as blocks",
    ),
    "average-pool": Rule(
        "average pooling of uneven windows, to several places, or in 1 or 3 dimensions",
        "a chip adds up a window and takes the factor into weights, the same for all windows",
        "`nn.AvgPool2d(k)` without `ceil_mode`, with padding 0 or `count_include_pad=True`; to one "
        "place `nn.AdaptiveAvgPool2d(1)` or `SpatialMean()`",
    ),
    "max-pool-form": Rule(
        "max pooling other than `nn.MaxPool2d` with kernel, stride and padding",
        "the other forms have no circuit here",
        "`PerStep(nn.MaxPool2d(kernel, stride, padding))` after the `Lif`",
    ),
    "batch-norm-form": Rule(
        "batch norm other than `nn.BatchNorm2d` and `nn.BatchNorm1d`",
        "only these are folded into weights",
        "`PerStep(nn.Sequential(nn.Conv2d(...), nn.BatchNorm2d(...)))`, or `nn.Linear` and "
        "`nn.BatchNorm1d`",
    ),
    "convolution-form": Rule(
        "convolutions other than `nn.Conv1d`, `nn.Conv2d` and `nn.ConvTranspose2d`, or weights "
        "applied by a function",
        "the other forms have no circuit here",
        "`nn.Conv2d(...)` as a module, inside `PerStep` or a loop over steps, or `nn.Linear`",
    ),
    "recurrent": Rule(
        "RNN, LSTM, GRU",
        "their gates multiply real numbers; a neuron adds spikes",
        "`RecurrentLif(nn.Linear(n, n))`, `norse.torch.LIFRecurrentCell`, or a longer `tau_mem_s`",
    ),
    "neuron": Rule(
        "neurons of another library, or of Norse other than LIF, LIFBox, IAF, LI and LIBox",
        "their step is not the chip's, or is not known to be",
        "`norse.torch.LIFCell`, `LIFBoxCell`, `IAFCell`, `LIFRecurrentCell`, `LICell` or "
        "`LIBoxCell`, or `neuroav.models.layers.Lif`",
    ),
    "dropout": Rule(
        "dropout that is on while the network is evaluated",
        "a chip does the same at every step, nothing by chance",
        "`nn.Dropout(p)`, or `training=self.training`",
    ),
    "block": Rule(
        "`PerStep` around a module with a forward of its own",
        "what `PerStep` holds is not entered",
        "`PerStep(nn.Sequential(...))` of supported layers, or `PerStep` around each layer",
    ),
    "module": Rule(
        "any other module",
        "it has no neuron and no synapse here",
        "layers of `neuroav.models.layers`, `nn.Conv2d`, `nn.Linear`, `nn.BatchNorm2d`, "
        "`nn.BatchNorm1d`, `nn.MaxPool2d`, `nn.Flatten`",
    ),
    "product": Rule(
        "products of tensors that have no neuron, powers, quotients of tensors in forward",
        "two tensors meet on a chip by adding, or in neurons that multiply messages; a constant "
        "factor goes into weights",
        "a constant number as the factor, `MaskAttention()` for a binary mask, `Multiply()` of "
        "spikes or of sums over time (`TimeWeightedSum`)",
    ),
    "mean": Rule(
        "means, sums and maxima in forward over anything but all steps or all places",
        "accumulators add up a sample, and a window of places; nothing compares them over time",
        "`.mean(0)`, `.sum(0)` or `[-1]` over steps at the end in place of a maximum, `.mean((2, "
        "3))` over places, `HeadSum(heads)` over channels, `TimeWeightedSum(steps)` before the end",
    ),
    "concat": Rule(
        "joining tensors in forward other than features side by side or all steps in order",
        _FEED,
        "`torch.cat` along the first axis of features, `Concat()`, or `Add()`",
    ),
    "reshape": Rule(
        "splitting, padding, rolling or repeating in forward, or moving 4 and more axes",
        _FEED,
        "`flatten`, `view`, `permute` and `transpose` of features, steps or samples; the rest in "
        "the data",
    ),
    "index": Rule(
        "taking or writing parts of features in forward",
        _FEED,
        "give each part an input of its own, or a convolution that reads it",
    ),
    "cast": Rule(
        "casts to whole numbers in forward: `.int()`, `.long()`",
        "currents and spikes are real numbers to the compiler, which rounds them itself",
        "none, or `.float()`, which changes nothing there",
    ),
    "parameter": Rule(
        "a parameter or buffer used directly in forward",
        "the chip has weights in synapses and biases in neurons only",
        "the bias of a convolution or linear layer; a position term is `Lif()` of a convolution of "
        "the tokens, as in `neuroav.models.stems`",
    ),
    "operation": Rule(
        "any other function or method in forward",
        _FEED,
        "layers of `neuroav.models.layers`: `Add`, `Gain`, `Concat`, `SpatialMean`, `TimeMean`, "
        "`PerStep`",
    ),
    "control-flow": Rule(
        "a forward that does not do the same at every step or for all data: branches on tensors, "
        "`int(tensor)`, layers left out in a step, ...",
        "a chip does the same at every step, whatever the data",
        "no `if`, `for` or number made of a tensor in forward; loops over steps that call every "
        "layer in every step",
    ),
    # --- how layers are called
    "constants": Rule(
        "a layer called with numbers or keywords, a sum with a constant, or a layer that only gets "
        "zeros",
        "only tensors are traced",
        "pass tensors in order; a constant to add is a bias, a factor `Gain(factor)`",
    ),
    "twice": Rule(
        "a module called twice in a step",
        _ONE_LAYER,
        "a second module; its weights may be the same parameter",
    ),
    "per-step": Rule(
        "a layer of single frames outside `PerStep`, or a layer of sequences inside it",
        "tensors are (steps, samples, ...), and `PerStep` gives a layer one frame at a time",
        "`PerStep(nn.Conv2d(...))`, `PerStep(nn.MaxPool2d(...))`; `Lif` and joins outside",
    ),
    "layout": Rule(
        "a layer that takes steps or samples for something else, or whose output is not (steps, "
        "samples, ...)",
        "the chip has one frame per step, and samples do not meet",
        "`nn.Flatten(2)` outside `PerStep`, `nn.Flatten()` inside and in loops; cells get `x[t]`, "
        "and `Steps(network)` runs a network of cells",
    ),
    "shape": Rule(
        "shapes that do not join",
        "every neuron has its place",
        "sizes that fit the layer before, and heads that divide the channels",
    ),
    "names": Rule(
        "a layer named like an input",
        "both would be the same node",
        "another name for the layer",
    ),
    "inputs": Rule(
        "arguments of forward that the sample does not hold, or the other way round",
        "every input is a population of its own",
        "one entry of the sample per argument, in the same order, and no optional arguments",
    ),
    "outputs": Rule(
        "several values returned",
        "the host reads class scores only",
        "`return scores`; `Steps(network)` or `WholeSample(network)` around a network that returns "
        "its state too",
    ),
    "fails": Rule(
        "forward fails on the sample",
        "what does not run cannot be compiled",
        "sizes that fit the sample, which comes as (steps, samples, ...); `nn.Flatten(2)` before a "
        "linear layer that reads all places; `Steps(network)` around a network of one step, "
        "`BatchFirst` around one that takes samples first",
    ),
    "state": Rule(
        "a neuron that gets another state than the one it gave, or whose membrane is read",
        "a neuron on a chip starts at rest, keeps its state, and sends spikes only",
        "`z, state = lif(x, state)` in every step, with `state = None` at first; "
        "`norse.torch.LICell` gives membranes as class scores",
    ),
    "loop": Rule(
        "a loop that is not closed right behind neurons",
        "what comes a step late is a message, and neurons send messages",
        "feed back the spikes: `lif(self.fc(x[t]) + self.recurrent(z), state)`",
    ),
    "delay-bias": Rule(
        "a layer with a bias whose output is taken some steps late",
        "a chip adds the bias in every step, also in the first ones",
        "`bias=False`, or a delay before the layer: `Delay(n)`, or zeros for it to read at first",
    ),
    "permute": Rule(
        "axes of many values moved in front of something else than a linear layer",
        "neurons are wired one by one there",
        "the weights of the next layer in that order, or the data",
    ),
    # --- parameters
    "padding": Rule(
        "padding by name or other than zeros",
        "what is outside a frame sends nothing, which is zero",
        "`padding=k // 2` with `padding_mode='zeros'`",
    ),
    "batch-norm-statistics": Rule(
        "batch norm without running statistics",
        "it would need the mean of the batch while it runs",
        "`nn.BatchNorm2d(channels)` with `track_running_stats=True`, and train again",
    ),
    "batch-norm-place": Rule(
        "batch norm that follows no convolution or linear layer of its own",
        "it can be folded only into the weights just before it",
        "convolution, batch norm, `Lif`, in this order; one convolution per batch norm",
    ),
    "max-pool-place": Rule(
        "max pooling of values that are not binary",
        "a chip can pool spikes only, by a logical OR",
        "the pooling after the `Lif`, and before sums",
    ),
    "current": Rule(
        "synapses, means or joins that read synaptic currents",
        "only neurons send; between two layers of synapses there must be some",
        "`Lif()` between them, or `TimeWeightedSum(steps)`; `Add` may join currents before either",
    ),
    "time-sum-bias": Rule(
        "a bias, or a batch norm, before a sum over the sample",
        "its accumulators start at 0 and get what synapses bring",
        "`nn.Linear(..., bias=False)` before `TimeWeightedSum`, without batch norm",
    ),
    "spikes-needed": Rule(
        "attention or a mask that reads values other than spikes",
        "it counts spikes that coincide",
        "`Lif` directly before q, k, v and the mask",
    ),
    "reset": Rule(
        "neurons with `v_reset` other than `v_leak`",
        "the chip's neuron resets to its rest",
        "equal values; Norse's default is 0 for both",
    ),
    "threshold": Rule(
        "neurons whose threshold is not above rest",
        "they would spike without input",
        "`LifParameters(v_threshold=...)` above 0",
    ),
    "time-constant": Rule(
        "neurons whose membrane is faster than a step",
        "the chip's decay is a fraction of the membrane per step, at most all of it",
        "`tau_mem_s` of at least `dt_s`",
    ),
    "neuron-parameters": Rule(
        "`Lif` or leaky integrators with parameters of their own for every neuron",
        "these layers have one threshold, reset, rest and time constant",
        "one number each; `norse.torch.LIFCell` and `LIFBoxCell` may have one per neuron",
    ),
    "time-step": Rule(
        "neuron layers with several `dt_s`, or no neurons at all",
        "the whole chip does one step after the other",
        "one `dt_s` for all layers; a slower layer gets a longer `tau_mem_s`",
    ),
    "gain": Rule(
        "a `Gain` that is zero, negative or not finite",
        "it becomes the worth of a message, which is positive",
        "a positive factor; take a sign into the weights before",
    ),
    "not-finite": Rule(
        "NaN or infinite values",
        "integers have none",
        "train or load the network again",
    ),
    "end": Rule(
        "a network that gives a score for every step, or for some steps, or reads such scores "
        "again",
        "class scores are collected over the sample by accumulators, and read once",
        "`TimeMean()` or `TimeLast()` as the last layer, `scores.mean(0)`, `.sum(0)` or `[-1]`, or "
        "`WholeSample(network)`",
    ),
    "static-input": Rule(
        "an input of real values that something other than a first layer reads",
        "the host computes the first layer of such an input, once per sample; the chip gets what "
        "its neurons need",
        "a convolution or linear layer, then `Lif`, right behind the input; a second reader gets a "
        "convolution and `Lif` of its own",
    ),
    "scales": Rule(
        "sums of values that are worth very different amounts",
        "they meet in whole numbers, and a synapse multiplies by a small one",
        "gains that are simple fractions of each other",
    ),
    "scores": Rule(
        "class scores that change on the way through the compiler",
        "the network does something that its layers do not say, or the compiler is wrong",
        "no state and no random numbers outside the layers; otherwise please report it",
    ),
    # --- the target
    "graded": Rule(
        "messages other than single spikes, on a target that has none",
        "one message is one spike there: no counts, no sums",
        "inputs of 0 and 1 (`max_count` 1); instead of residual sums, `Add` of two convolutions "
        "before one `Lif`; instead of `SpatialMean`, `nn.Flatten(2)` and `nn.Linear`; or target "
        "`loihi2`",
    ),
    "delay": Rule(
        "a branch that must wait longer than the target's largest delay",
        "parallel branches meet in the same step, and what holds a sample delays its branch by one",
        "`SpatialAttention` or `MaskAttention` (`scmrl.form` spatial or mask), which answer every "
        "step; or fewer steps per sample",
    ),
    "per-channel": Rule(
        "scales per channel on a target with one threshold per layer",
        "scales per channel need thresholds per neuron",
        "`neuroav export --per-tensor`, or `quant.per_channel=false` in training",
    ),
    "cost-only": Rule(
        "a cost-only profile",
        "its arithmetic is not this compiler's, only its prices are known",
        "deploy for `loihi2` and price that file: `neuroav report FILE.nav --profile ID`",
    ),
    "fit": Rule(
        "more than a core or the whole target holds, however layers are split",
        "every neuron, weight and message needs its place on some core (`docs/mapping.md`)",
        "see the finding; `neuroav export --no-place` writes the file all the same",
    ),
    "other": Rule(
        "anything else the compiler refuses",
        "see the message",
        "see the message",
    ),
    "non-causal": Rule(
        "attention or means over the steps of a sample",
        "it deploys, but answers only when the whole sample is there",
        "`SpatialAttention` or `MaskAttention` where the answer must come step by step",
        "note",
    ),
}


def rules_table() -> str:
    """Return the table of ``docs/lint.md``: one row per rule."""
    rows = ["| rule | found | why | rewrite |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        mark = "" if rule.severity == "error" else f" ({rule.severity})"
        rows.append(f"| `{name}`{mark} | {rule.found} | {rule.why} | {rule.rewrite} |")
    return "\n".join(rows) + "\n"
