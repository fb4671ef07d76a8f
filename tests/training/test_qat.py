"""Quantization-aware training computes with the deployed integers, and only with those."""

from __future__ import annotations

import fake_data
import numpy as np
import pytest
import samples
import torch
from torch import nn

from neuroav.errors import ConfigError, UnsupportedModule
from neuroav.models.layers import Add, Lif, PerStep, SpatialMean, TimeMean
from neuroav.models.quantized import QatLif, QatReadout, QatSynapses
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav.training import evaluate as evaluation
from neuroav.training import loop
from neuroav.training.config import QuantConfig, load_config
from neuroav.training.qat import calibrate_range, prepare_qat
from neuroav_export import compile_module


def config(bits=8, calibration="max", per_channel=False) -> QuantConfig:
    return QuantConfig(aware=True, bits=bits, calibration=calibration, per_channel=per_channel)


def spikes_of(model, inputs) -> dict[str, np.ndarray]:
    """Return (samples, steps, ...) spikes of every neuron layer, by module name."""
    found, handles = {}, []
    for name, module in model.named_modules():
        if isinstance(module, Lif):

            def keep(module, args, output, name=name):
                found[name] = np.moveaxis(output.numpy(), 0, 1)

            handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        model(*[torch.from_numpy(np.moveaxis(inputs[n], 1, 0)).float() for n in inputs])
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize(
    ("bits", "calibration", "per_channel"),
    [(8, "max", False), (4, "mse", False), (3, "mse", True), (2, "percentile", True)],
)
def test_training_forward_gives_the_deployed_spikes(bits, calibration, per_channel):
    inputs = samples.poisson_inputs(5, 4)
    model = prepare_qat(samples.warmed_model("add"), config(bits, calibration, per_channel)).eval()
    trained = spikes_of(model, inputs)
    deployment = compile_module(model, inputs, bits=bits, calibration=calibration,
                                per_channel=per_channel)  # fmt: skip
    deployed = collect(fast.run(deployment, inputs))
    assert len(trained) == 10
    assert sum(v.any() for v in trained.values()) >= 6
    for name, value in trained.items():
        assert np.array_equal(value, deployed[name]), name


@pytest.mark.parametrize("form", ["spatial", "temporal", "spatiotemporal", "mask", "gain and norm"])
@pytest.mark.parametrize(("bits", "steps"), [(8, 4), (3, 8)])
def test_cross_modal_attention_too(form, bits, steps):
    inputs = samples.poisson_inputs(4, steps)
    level = 2.0 if form == "mask" else 0.5  # a sum of eight channels passes 0.5 nearly always
    switches = {"form": form, "residual_threshold": 0.1, "attention_threshold": level}
    if form == "gain and norm":
        switches |= {"form": "spatiotemporal", "residual_gain": 16.0, "residual_norm": True}
    model = samples.awake_scmrl(steps, **switches)
    prepare_qat(model, config(bits, "mse")).eval()
    calibrate_range(
        model, [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()]
    )
    trained = spikes_of(model, inputs)
    deployment = compile_module(model, inputs, bits=bits, calibration="mse")
    deployed = collect(fast.run(deployment, inputs))
    attention = [n for n in trained if "cross" in n]
    assert len(attention) >= 10
    assert all(0.001 < trained[n].mean() < 0.999 for n in attention), {
        n: trained[n].mean() for n in attention
    }
    for name, value in trained.items():
        assert np.array_equal(value, deployed[name]), name


def test_decays_that_are_no_power_of_two_stay_exact():
    inputs = samples.poisson_inputs(5, 6, rate=1.5)
    model = prepare_qat(samples.warmed_model("add", steps=6, tau_mem_s=3.7e-3), config()).eval()
    trained = spikes_of(model, inputs)
    deployed = collect(fast.run(compile_module(model, inputs), inputs))
    assert trained["visual.stem.lif0"].mean() > 0.01
    for name, value in trained.items():
        assert np.array_equal(value, deployed[name]), name


def test_without_quantizing_it_is_the_float_network():
    inputs = samples.poisson_inputs(6, 4)
    plain = samples.warmed_model("visual")
    folded = prepare_qat(samples.warmed_model("visual"), config()).eval()
    for module in folded.modules():
        if isinstance(module, (QatSynapses, QatReadout)):
            module.quantize = False
    x = torch.from_numpy(np.moveaxis(inputs["visual"], 1, 0)).float()
    with torch.no_grad():
        torch.testing.assert_close(folded(x), plain(x), rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient():
    inputs = samples.poisson_inputs(4, 4, rate=2.0)
    model = prepare_qat(samples.warmed_model("add"), config(4, "mse")).train()
    tensors = [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()]
    model(*tensors).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_clipped_weights_get_no_gradient():
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.1, -0.1, 0.1, 5.0]]))
    options = config(3, "percentile")
    model = nn.Sequential(layer, Lif())
    net = prepare_qat(nn.Sequential(model, nn.Linear(1, 2), TimeMean()), options)
    synapses = net[0][0]
    synapses.options = type(synapses.options)(3, "percentile", 60.0)
    synapses(torch.ones(1, 1, 4)).sum().backward()
    assert synapses.weight.grad[0, 3] == 0
    assert (synapses.weight.grad[0, :3] != 0).all()


class Skip(nn.Module):
    """lif(conv(x) + x): a neuron layer with two synaptic inputs."""

    inputs = ("x",)

    def __init__(self):
        super().__init__()
        self.conv, self.add, self.lif = PerStep(nn.Conv2d(1, 1, 1)), Add(), Lif()
        self.mean, self.head, self.time_mean = SpatialMean(), nn.Linear(1, 2), TimeMean()

    def forward(self, x):
        return self.time_mean(self.head(self.mean(self.lif(self.add(self.conv(x), x)))))


def test_what_it_cannot_train_is_named():
    with pytest.raises(UnsupportedModule, match="lif: quantization-aware training needs every"):
        prepare_qat(Skip(), config())


def test_fine_tuning_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "load_data", fake_data.load_data)
    monkeypatch.setattr(evaluation, "load_data", fake_data.load_data)
    base = {"model.embed_dim": "8", "train.batch_size": "8", "data.steps": "4"}
    loop.train(load_config(model="add", overrides={**base, "train.epochs": "2"}),
               tmp_path / "float", cache_dir=tmp_path)  # fmt: skip
    aware = load_config(model="add", overrides={
        **base, "train.epochs": "2", "quant.aware": "true", "quant.bits": "4"})  # fmt: skip
    with pytest.raises(ConfigError, match="starts from a trained float network"):
        loop.train(aware, tmp_path / "qat", cache_dir=tmp_path)
    assert not (tmp_path / "qat").exists()
    weights = tmp_path / "float" / "model.safetensors"
    loop.train(aware, tmp_path / "qat", init_from=weights, cache_dir=tmp_path)
    model, data, _ = evaluation.load_run(tmp_path / "qat", cache_dir=tmp_path)
    assert sum(isinstance(m, QatLif) for m in model.modules()) == 10
    frames = data.split("test").frames()
    inputs = {n: getattr(frames, n) for n in model.inputs}
    deployment = compile_module(model, inputs, bits=4, calibration="mse")
    deployed = collect(fast.run(deployment, inputs))
    for name, value in spikes_of(model, inputs).items():
        assert np.array_equal(value, deployed[name]), name
