"""S-CMRL against its transcription from the released code, and against what is published of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import samples
import torch
from torch import nn

from neuroav.models import build_model
from neuroav.models.add import AddFusion, Sizes
from neuroav.models.layers import Lif, LifParameters, TemporalAttention
from neuroav.models.stems import BranchShape
from neuroav.training.config import ModelConfig, ScmrlConfig
from neuroav.training.losses import alignment_loss, mean_alignment_loss

released = samples.load_script(Path(__file__).with_name("released_scmrl.py"))

FRAMES = {"audio": (1, 16, 16), "visual": (2, 16, 16)}
DIGITS = {"audio": (1, 28, 28), "visual": (2, 28, 28)}
PICTURES = {"audio": (1, 128, 128), "visual": (3, 128, 128)}


def network(
    shapes=FRAMES, classes: int = 6, embed_dim: int = 32, stem: str = "shallow", **switches
) -> nn.Module:
    config = ModelConfig(name="scmrl", stem=stem, embed_dim=embed_dim, readout_gain=1.0)
    cross = ScmrlConfig(**{"mode": "faithful", "heads": 16, **switches})
    return build_model(config, shapes, classes, cross).eval()


def active(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model float64 weights under which every layer fires."""
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.double().load_state_dict(released.active_values(shapes, seed))
    return model


def frames(steps: int = 4, batch: int = 3, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.poisson(torch.full((steps, batch, *shape), 0.7), generator=generator).double()
        for shape in FRAMES.values()
    ]


def layers(form: str, stages: int = 2):
    """Yield (our convolution with norm, our neurons, released name) of every such pair."""
    for number, name in enumerate(("audio", "visual")):
        for stage in range(stages):
            ours = f"stem.{name}.conv{stage}", f"stem.{name}.lif{stage}"
            yield *ours, f"{name}_patch_embed.proj_{{}}{stage or ''}"
        ours = f"stem.{name}.position", f"stem.{name}.position_lif"
        yield *ours, f"{name}_patch_embed.rpe_{{}}"
        for layer in (1, 2):
            ours = f"mlp.{name}.fc{layer}", f"mlp.{name}.lif{layer}"
            yield *ours, f"mlp.{number}.mlp.fc{layer}_{{}}"
        for ours, theirs in attentions(form, number):
            for part in ("q", "k", "v", "proj"):
                yield f"{ours}.{part}.conv", f"{ours}.{part}.lif", f"{theirs}{part}_{{}}"


def attentions(form: str, number: int) -> list[tuple[str, str]]:
    ours = ("cross.audio_from_visual", "cross.visual_from_audio")[number]
    if form != "spatiotemporal":
        return [(f"{ours}.{form}", f"block.{number}.attn.")]
    return [
        (f"{ours}.{kind}", f"block.{number}.attn.{kind}_attn.") for kind in ("spatial", "temporal")
    ]


def neuron_names(form: str) -> dict[str, str]:
    """Return our name -> released name of every layer of neurons."""
    names = {ours: theirs.format("lif") for _, ours, theirs in layers(form)}
    for number, pair in enumerate(("audio_from_visual", "visual_from_audio")):
        names[f"cross.{pair}.lif"] = f"block.{number}.trans_lif"
        for ours, theirs in attentions(form, number):
            names[f"{ours}.attention_lif"] = f"{theirs}attn_lif"
    return names


def released_weights(model: nn.Module, form: str) -> dict[str, torch.Tensor]:
    """Return the model's weights under their released names."""
    state, found = model.state_dict(), {}
    for conv, _, theirs in layers(form):
        kernel, over_rows = state[f"{conv}.layer.conv.weight"], "patch_embed" in theirs
        found[f"{theirs.format('conv')}.weight"] = kernel if over_rows else kernel[..., 0]
        if f"{conv}.layer.conv.bias" in state:
            found[f"{theirs.format('conv')}.bias"] = state[f"{conv}.layer.conv.bias"]
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{theirs.format('bn')}.{part}"] = state[f"{conv}.layer.norm.{part}"]
    for number, pair in enumerate(("audio_from_visual", "visual_from_audio")):
        linear = f"cross.{pair}.linear.layer"
        found[f"block.{number}.trans_linear.weight"] = state[f"{linear}.weight"][:, :, 0, 0]
        found[f"block.{number}.trans_linear.bias"] = state[f"{linear}.bias"]
    found["head.weight"], found["head.bias"] = (
        state["head.linear.weight"],
        state["head.linear.bias"],
    )
    return found


def spikes_of(model: nn.Module, inputs: list[torch.Tensor]):
    """Return (logits, spikes by name of every layer of neurons)."""
    spikes: dict[str, torch.Tensor] = {}
    handles = [
        m.register_forward_hook(lambda _, __, out, n=n: spikes.update({n: out}))
        for n, m in model.named_modules()
        if isinstance(m, Lif)
    ]
    with torch.no_grad():
        logits = model(*inputs)
    for handle in handles:
        handle.remove()
    return logits, spikes


@pytest.mark.parametrize("heads", [4, 16])
@pytest.mark.parametrize(
    ("form", "mode"),
    [
        ("spatial", "faithful"),
        ("temporal", "faithful"),
        ("spatiotemporal", "faithful"),
        ("spatiotemporal", "correct"),
    ],
)
def test_every_layer_spikes_as_released(form, mode, heads):
    model = active(network(form=form, mode=mode, heads=heads))
    inputs, faithful = frames(), mode == "faithful"
    setting = released.Setting(form, heads, 1.5, 1.0 if faithful else 0.5, faithful)
    theirs = released.run(released_weights(model, form), setting, *inputs)
    logits, ours = spikes_of(model, inputs)
    names = neuron_names(form)
    assert set(ours) == set(names)
    assert set(theirs.spikes) == set(names.values())
    assert {n: r for n, s in ours.items() if not 0.005 <= (r := float(s.mean())) <= 0.9} == {}
    for name, spikes in ours.items():
        expected = theirs.spikes[names[name]]
        assert torch.equal(spikes.flatten(3), expected.flatten(3)), name
    assert float(logits.std()) > 0.05
    torch.testing.assert_close(logits, theirs.logits, rtol=1e-12, atol=1e-12)


def test_sums_of_spikes_meet_the_threshold_exactly():
    """So the test above tells >= from >."""
    model = active(network())
    found = released.run(released_weights(model, "spatiotemporal"), released.Setting(), *frames())
    for name in ("block.0.attn.spatial_attn.attn_lif", "block.1.attn.temporal_attn.attn_lif"):
        assert int((found.membranes[name] == 1.0).sum()) > 10


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("shapes", "stem", "embed_dim", "classes", "whole", "without"),
    [
        pytest.param(PICTURES, "deep", 256, 6, "4.204e+06", "3.016e+06", id="crema-d"),
        pytest.param(PICTURES, "deep", 64, 10, "2.67e+05", "1.91e+05", id="urbansound8k"),
        pytest.param(DIGITS, "shallow", 32, 10, "6.56e+04", "4.61e+04", id="digits-32"),
        pytest.param(DIGITS, "shallow", 64, 10, "2.56e+05", "1.80e+05", id="digits-64"),
        pytest.param(DIGITS, "shallow", 128, 10, "1.012e+06", "7.13e+05", id="digits-128"),
        pytest.param(DIGITS, "shallow", 256, 10, "4.02e+06", "2.83e+06", id="digits-256"),
        pytest.param(DIGITS, "shallow", 512, 10, "1.60e+07", "1.13e+07", id="digits-512"),
    ],
)
def test_parameters_are_as_many_as_published(shapes, stem, embed_dim, classes, whole, without):
    with torch.device("meta"):
        model = network(shapes, classes, embed_dim, stem)
        branches = {n: BranchShape(*shape, pool_first=False) for n, shape in shapes.items()}
        sizes = Sizes(classes, embed_dim, 4, 1.0, LifParameters(), stem, mlp_bias=True)
        add = AddFusion(**branches, sizes=sizes)
    for built, published in ((model, whole), (add, without)):
        digits = len(published.partition("e")[0]) - 2
        assert f"{parameters(built):.{digits}e}" == published


@pytest.mark.parametrize(("alpha", "same"), [(0.0, True), (1.5, False)])
def test_without_alpha_the_attention_changes_no_score(alpha, same):
    model = active(network(alpha=alpha))
    before, spikes = spikes_of(model, frames())
    assert 0.005 < float(spikes["stem.audio.lif1"].mean()) < 0.9
    with torch.no_grad():
        for parameter in model.cross.parameters():
            parameter.normal_()
    after, _ = spikes_of(model, frames())
    assert torch.equal(before, after) == same


@pytest.mark.parametrize(("mode", "crosses"), [("faithful", False), ("correct", True)])
def test_gradient_crosses_steps_as_its_mode_says(mode, crosses):
    neurons = network(mode=mode).stem["audio"].lif0
    x = torch.full((4, 50), 0.9).add(torch.linspace(-0.4, 0.4, 50)).requires_grad_()
    spikes = neurons(x)
    spikes[3].sum().backward()
    assert bool((x.grad[3] != 0).all())
    assert bool((x.grad[:3] != 0).any()) == crosses
    if not crosses:
        _, membranes = released.lif(x.detach())
        sigmoid = torch.sigmoid(4 * (membranes[3] - 1))
        torch.testing.assert_close(x.grad[3], 0.5 * 4 * sigmoid * (1 - sigmoid))


@pytest.mark.parametrize(("steps", "heads", "channels"), [(4, 16, 32), (4, 4, 16), (16, 16, 32)])
def test_the_scrambled_write_back_is_the_released_permutation(steps, heads, channels):
    d = channels // heads
    values = torch.arange(1.0, 1 + steps * channels).reshape(steps, channels)
    k = torch.zeros(steps, channels)
    for h in range(heads):
        for i in range(d):  # k and v that make k^T v of every head the identity
            k[i, h * d + i] = 1
    as_tokens = [x[:, None, :, None, None] for x in (values, k, k)]
    found = TemporalAttention(heads, scale=1.0, scrambled=True)(*as_tokens)[:, 0, :, 0, 0]
    expected = torch.zeros(steps, channels)
    for h in range(heads):
        for t in range(steps):
            for j in range(d):
                flat = (h * steps + t) * d + j
                expected[flat // channels, flat % channels] = values[t, h * d + j]
    assert torch.equal(found, expected)
    assert not torch.equal(found, values)
    straight = TemporalAttention(heads, scale=1.0)(*as_tokens)[:, 0, :, 0, 0]
    assert torch.equal(straight, values)


def test_the_alignment_loss_is_its_formula():
    torch.manual_seed(0)
    labels, temperature = torch.tensor([0, 1, 0, 2, 1]), 0.07
    r = {n: torch.rand(4, 5, 8, 2, 2).round() for n in ("audio_from_visual", "visual_from_audio")}
    u, w = (x.mean(dim=(0, 3, 4)).tolist() for x in r.values())
    size, total = len(labels), 0.0
    for i in range(size):
        scores = [sum(a * b for a, b in zip(u[i], w[j], strict=True)) for j in range(size)]
        powers = torch.tensor(scores, dtype=torch.float64).div(temperature).exp()
        for j in range(size):
            if labels[i] == labels[j]:
                total += float(torch.log(powers[j] / powers.sum()))
    expected = -total / size**2
    assert expected > 0.1
    assert float(mean_alignment_loss(r, labels, temperature)) == pytest.approx(expected, rel=1e-5)
    rates = [x.mean(dim=(0, 3, 4)) for x in r.values()]
    one_way = float(alignment_loss(*rates, labels, temperature))
    other_way = float(alignment_loss(*rates[::-1], labels, temperature))
    assert one_way == pytest.approx(expected, rel=1e-5)
    assert abs(one_way - other_way) > 1e-4


SWITCHES = {
    "faithful": {
        "attention_threshold": 1.0,
        "residual_threshold": 1.0,
        "scrambled": True,
        "detach_state": True,
        "mlp_bias": True,
    },
    "correct": {
        "attention_threshold": 0.5,
        "residual_threshold": 0.5,
        "scrambled": False,
        "detach_state": False,
        "mlp_bias": False,
    },
}


def found_switches(model: nn.Module) -> dict[str, object]:
    """Return what a built network makes of the five switches; each must be the same throughout."""
    neurons = {n: m.parameters_ for n, m in model.named_modules() if isinstance(m, Lif)}
    found: dict[str, set[object]] = {name: set() for name in SWITCHES["correct"]}
    for name, p in neurons.items():
        found["detach_state"].add(p.detach_state)
        if name.endswith("attention_lif"):
            found["attention_threshold"].add(p.v_threshold)
        elif name.startswith("cross") and name.count(".") == 2:
            found["residual_threshold"].add(p.v_threshold)
        else:
            assert p.v_threshold == 1.0
    for m in model.modules():
        if isinstance(m, TemporalAttention):
            found["scrambled"].add(m.scrambled)
    for name in ("audio", "visual"):
        for layer in (model.mlp[name].fc1, model.mlp[name].fc2):
            found["mlp_bias"].add(layer.layer.conv.bias is not None)
    assert {n for n, values in found.items() if len(values) != 1} == set()
    return {n: values.pop() for n, values in found.items()}


@pytest.mark.parametrize("mode", list(SWITCHES))
def test_a_mode_sets_its_switches_and_each_can_be_set_alone(mode):
    other = SWITCHES["correct" if mode == "faithful" else "faithful"]
    assert found_switches(network(mode=mode)) == SWITCHES[mode]
    for name, value in other.items():
        changed = found_switches(network(mode=mode, **{name: value}))
        assert changed == {**SWITCHES[mode], name: value}, name
