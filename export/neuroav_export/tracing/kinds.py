"""Names of what PyTorch has and a chip has not, by the rule of ``docs/lint.md`` they break."""

from __future__ import annotations

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
