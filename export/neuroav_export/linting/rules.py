"""What a network on a chip cannot have: one literal table of rules with why and the rewrite.

The checks themselves are where the compiler raises them; an error names its rule
(``NeuroavError.rule``). ``docs/lint.md`` is printed from here by ``rules_table``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
        "average pooling",
        "means of spikes are no spikes",
        "`PerStep(nn.MaxPool2d(k))` after the `Lif`, or a stride in the convolution; before the "
        "class scores `SpatialMean()`",
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
        "convolutions other than `nn.Conv2d`, or weights applied by a function",
        "the other forms have no circuit here",
        "`PerStep(nn.Conv2d(...))` or `nn.Linear`; one axis is a kernel of `(1, k)`",
    ),
    "recurrent": Rule(
        "RNN, LSTM, GRU",
        "networks here are feed-forward; what a neuron remembers is its membrane",
        "`nn.Linear` and `Lif(LifParameters(tau_mem_s=...))` with a longer time constant",
    ),
    "neuron": Rule(
        "neurons of another library, or Norse's own modules",
        "their step is not the chip's, or is not known to be",
        "`neuroav.models.layers.Lif(LifParameters(...))`, which runs Norse's LIFBox equation",
    ),
    "dropout": Rule(
        "dropout other than `nn.Dropout`",
        "only that one is known to do nothing after training",
        "`nn.Dropout(p)`",
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
        "products, quotients and differences in forward",
        "two tensors meet on a chip by adding, or in neurons that multiply messages; a constant "
        "factor goes into weights",
        "`Gain(factor)` for a positive constant, `MaskAttention()` for a binary mask, `Multiply()` "
        "of spikes or of sums over time (`TimeWeightedSum`); take a sign into the weights before",
    ),
    "mean": Rule(
        "means and sums in forward",
        "which axis holds the time is not known there",
        "`SpatialMean()` over places, `HeadSum(heads)` over channels, `TimeWeightedSum(steps)` "
        "over steps, `TimeMean()` at the end",
    ),
    "concat": Rule(
        "joining tensors in forward",
        _FEED,
        "`Concat()` of two feature tensors (T, B, M), or `Add()`",
    ),
    "reshape": Rule(
        "reshaping, transposing and splitting in forward",
        _FEED,
        "`nn.Flatten(2)` for features, `PerStep(...)` for layers of single frames; keep "
        "(T, B, C, H, W) otherwise",
    ),
    "index": Rule(
        "indexing in forward",
        _FEED,
        "give each part an input of its own, or a convolution that reads it",
    ),
    "cast": Rule(
        "casts and copies in forward: `.float()`, `.to()`, `.contiguous()`, `.detach()`",
        "a chip has one kind of number",
        "none; the compiler runs the network in float64 as it is",
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
        "a forward that fx cannot follow: branches or loops on tensors, `int(tensor)`, ...",
        "a chip does the same at every step, whatever the data",
        "no `if`, `for` or number made of a tensor in forward; loops over steps are inside `Lif` "
        "and `PerStep`",
    ),
    # --- how layers are called
    "constants": Rule(
        "a layer or sum called with numbers or keywords",
        "only tensors are traced",
        "pass tensors in order; a constant to add is a bias, a factor `Gain(factor)`",
    ),
    "twice": Rule(
        "a module called twice",
        _ONE_LAYER,
        "a second module; its weights may be the same parameter",
    ),
    "per-step": Rule(
        "a layer of single frames outside `PerStep`, or a layer of sequences inside it",
        "tensors are (steps, samples, ...), and `PerStep` gives a layer one frame at a time",
        "`PerStep(nn.Conv2d(...))`, `PerStep(nn.MaxPool2d(...))`; `Lif` and joins outside",
    ),
    "layout": Rule(
        "a layer whose output is not (steps, samples, ...)",
        "the chip has one frame per step, and samples do not meet",
        "`nn.Flatten(2)` outside `PerStep`, `nn.Flatten()` inside; axes 0 and 1 stay as they are",
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
        "`return scores`; what training needs besides in a method of its own",
    ),
    "fails": Rule(
        "forward fails on the sample",
        "what does not run cannot be compiled",
        "sizes that fit the sample; `nn.Flatten(2)` before a linear layer that reads all places",
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
        "neurons of one layer with parameters of their own",
        "a layer has one threshold, reset, rest and time constant",
        "one number each, or a layer per group of neurons; thresholds that differ can go into "
        "weights",
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
        "a network that does not end in a mean over time, or has one before its end",
        "class scores are collected over the sample by accumulators, and read once",
        "`TimeMean()` as the last layer, after the linear layer of class scores, read by nothing "
        "else",
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

# Names of classes, functions and methods in lower case, by the rule they break.
_NAMES: dict[str, str] = {
    "activation": "relu relu_ relu6 leakyrelu leaky_relu prelu rrelu elu selu celu gelu silu mish "
    "sigmoid logsigmoid hardsigmoid hardswish hardtanh tanh tanhshrink softplus softsign "
    "softshrink hardshrink threshold glu clamp clip heaviside sign",
    "softmax": "softmax softmax2d log_softmax logsoftmax softmin adaptivelogsoftmaxwithloss",
    "normalisation": "layernorm layer_norm groupnorm group_norm instancenorm1d instancenorm2d "
    "instancenorm3d instance_norm rmsnorm rms_norm localresponsenorm local_response_norm normalize",
    "attention": "multiheadattention multi_head_attention_forward transformer transformerencoder "
    "transformerencoderlayer transformerdecoder transformerdecoderlayer "
    "scaled_dot_product_attention matmul bmm mm einsum baddbmm",
    "average-pool": "avgpool1d avgpool2d avgpool3d adaptiveavgpool1d adaptiveavgpool2d "
    "adaptiveavgpool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d lppool1d lppool2d lp_pool2d",
    "max-pool-form": "maxpool1d maxpool3d adaptivemaxpool1d adaptivemaxpool2d adaptivemaxpool3d "
    "fractionalmaxpool2d maxunpool2d max_pool1d max_pool2d max_pool3d adaptive_max_pool2d amax "
    "max_pool2d_with_indices",
    "batch-norm-form": "batchnorm3d syncbatchnorm lazybatchnorm1d lazybatchnorm2d batch_norm",
    "convolution-form": "conv1d conv3d convtranspose1d convtranspose2d convtranspose3d conv2d "
    "linear lazyconv2d lazylinear bilinear unfold fold conv_transpose2d",
    "recurrent": "rnn lstm gru rnncell lstmcell grucell",
    "dropout": "dropout1d dropout2d dropout3d alphadropout featurealphadropout dropout",
    "product": "mul mul_ multiply imul sub sub_ subtract isub rsub div div_ truediv neg pow square "
    "sqrt exp log rsqrt addcmul",
    "mean": "mean sum nanmean std var norm max min argmax cumsum",
    "concat": "cat concat concatenate stack hstack vstack",
    "reshape": "reshape view flatten unflatten permute transpose swapaxes movedim squeeze "
    "unsqueeze split chunk unbind repeat repeat_interleave expand expand_as t flip "
    "roll pad tile interpolate",
    "cast": "float double half bfloat16 to type type_as int long contiguous detach clone cpu cuda",
    "index": "getitem select narrow index_select gather take masked_fill where",
}
KINDS: dict[str, str] = {name: rule for rule, names in _NAMES.items() for name in names.split()}
# Packages whose modules are neurons with their own loop over steps.
NEURON_PACKAGES = {"norse", "snntorch", "spikingjelly", "sinabs", "lava", "rockpool", "bindsnet"}


def rules_table() -> str:
    """Return the table of ``docs/lint.md``: one row per rule."""
    rows = ["| rule | found | why | rewrite |", "|---|---|---|---|"]
    for name, rule in RULES.items():
        mark = "" if rule.severity == "error" else f" ({rule.severity})"
        rows.append(f"| `{name}`{mark} | {rule.found} | {rule.why} | {rule.rewrite} |")
    return "\n".join(rows) + "\n"
