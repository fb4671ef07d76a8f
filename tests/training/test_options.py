"""Options of training: recomputing parts, lower precision, memory that stays with the process."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest
import torch

from neuroav import memory
from neuroav.errors import ConfigError
from neuroav.memory import kept_memory
from neuroav.models import MODELS, build_model
from neuroav.models.layers import Lif
from neuroav.models.segments import Segmented, set_recompute
from neuroav.training import loop
from neuroav.training.config import load_config
from neuroav.training.losses import training_loss

SHAPES = {"audio": (8, 8, 8), "visual": (2, 16, 16)}


def network(name="scmrl", **changes):
    config = load_config(
        model=name,
        overrides={"model.embed_dim": "8", "model.v_threshold": "0.3", **changes},
    )
    torch.manual_seed(0)
    model = build_model(config.model, SHAPES, 3, config.scmrl).train()
    return config, model.to(memory_format=torch.channels_last)


def batch(model, samples=6):
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.rand(4, samples, *SHAPES[n], generator=generator) * 4 for n in model.inputs]
    return inputs, torch.arange(samples) % 3


def step(config, model):
    """Return the loss of one batch; gradients are in the model's parameters."""
    inputs, labels = batch(model)
    _, loss = training_loss(model, inputs, labels, config)
    loss.backward()
    return loss.detach()


@pytest.mark.parametrize("stem", ["compact", "deep"])
@pytest.mark.parametrize("name", sorted(MODELS))
def test_recomputing_changes_no_gradient_and_no_statistics(name, stem):
    found = []
    for recompute in (False, True):
        config, model = network(name, **{"model.stem": stem} if name == "scmrl" else {})
        loss = step(config, set_recompute(model, recompute))
        found.append((loss, dict(model.named_parameters()), dict(model.named_buffers())))
    (loss, plain, buffers), (again, recomputed, buffers_again) = found
    assert torch.equal(loss, again)
    assert any(float(p.grad.abs().max()) > 1e-3 for p in plain.values() if p.grad is not None)
    for key, parameter in plain.items():
        other = recomputed[key].grad
        assert (parameter.grad is None) == (other is None)
        assert other is None or torch.equal(parameter.grad, other), key
    assert all(torch.equal(value, buffers_again[key]) for key, value in buffers.items())
    assert any(key.endswith("num_batches_tracked") and value == 1 for key, value in buffers.items())


def bytes_between_the_passes(recompute: bool, monkeypatch) -> int:
    """Return the bytes of all storages that the graph refers to after the forward pass."""
    config, model = network()
    inputs, labels = batch(set_recompute(model, recompute), 32)
    sizes: dict[int, int] = {}
    part = Segmented.part

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    def packed(self, function, *tensors):  # torch holds the inputs of parts without packing them
        return part(self, function, *[pack(x) for x in tensors])

    with monkeypatch.context() as patch:
        patch.setattr(Segmented, "part", packed)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _, loss = training_loss(model, inputs, labels, config)
    assert loss.requires_grad
    return sum(sizes.values())


def test_recomputing_keeps_less_for_the_backward_pass(monkeypatch):
    plain = bytes_between_the_passes(False, monkeypatch)
    assert bytes_between_the_passes(True, monkeypatch) < 0.5 * plain


def test_no_part_is_recomputed_in_evaluation(monkeypatch):
    _, model = network()
    set_recompute(model).eval()
    monkeypatch.setattr("neuroav.models.segments.checkpoint", None)
    inputs, _ = batch(model)
    assert model(*inputs).shape == (6, 3)


def test_lower_precision_keeps_float32_neurons_and_weights():
    config, model = network(**{"train.precision": "bfloat16"})
    arriving, leaving = set(), set()

    def note(module, args, out):
        arriving.add(args[0].dtype)
        leaving.add(out.dtype)

    for module in model.modules():
        if isinstance(module, Lif):
            module.register_forward_hook(note)
    loss = step(config, model)
    assert torch.bfloat16 in arriving  # convolutions were in lower precision
    assert leaving == {torch.float32}
    assert loss.dtype == torch.float32
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert {g.dtype for g in grads} == {torch.float32}
    assert all(torch.isfinite(g).all() for g in grads)
    exact_config, exact = network()
    torch.testing.assert_close(step(exact_config, exact), loss, rtol=0.2, atol=0)


def test_lower_precision_changes_few_spikes():
    """Not equal, and the option's description says so; float32 is the default."""
    assert load_config(model="scmrl").train.precision == "float32"
    spikes = {}
    for precision in ("float32", "bfloat16"):
        config, model = network(**{"train.precision": precision})
        first = next(m for m in model.modules() if isinstance(m, Lif))
        first.register_forward_hook(
            lambda m, a, out, precision=precision: spikes.update({precision: out.detach()})
        )
        step(config, model)
    rate = float(spikes["float32"].mean())
    assert 0.01 < rate < 0.9
    differ = float((spikes["float32"] != spikes["bfloat16"]).float().mean())
    assert 0 < differ < 0.05


@pytest.mark.parametrize("key", ["train.recompute=true", "train.precision=bfloat16"])
def test_networks_that_classify_by_text_refuse_both(key, tmp_path):
    name, _, value = key.partition("=")
    config = load_config(model="stft", overrides={name: value})
    with pytest.raises(
        ConfigError, match=r"train\.recompute, train\.precision and train\.device are for"
    ):
        loop._train_zero_shot(config, tmp_path, None, False, None, None)


class Library:
    """A C library that notes what it is told."""

    def __init__(self, answer=1):
        self.calls, self.answer = [], answer
        self.gnu_get_libc_version = None

    def mallopt(self, name, value):
        self.calls.append((name, value))
        return self.answer

    def malloc_trim(self, rest):
        self.calls.append(("trim", rest))


@pytest.mark.parametrize("answer", [0, 1])
def test_memory_is_kept_and_given_back(monkeypatch, answer):
    library = Library(answer)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    with kept_memory() as kept:
        assert kept is bool(answer)
        assert (-3, 2**30) in library.calls
    assert library.calls[-1] == ("trim", 0)
    assert dict(c for c in library.calls[:-1])[-3] == 2**25


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    with kept_memory() as kept:
        assert not kept


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = load_config(model="add", overrides={"train.device": "cuda"})
    with pytest.raises(ConfigError, match="torch finds no GPU here"):
        loop.train(config, tmp_path / "run", cache_dir=tmp_path)
    assert not (tmp_path / "run").exists()
    aware = load_config(model="add", overrides={"train.device": "cuda:1", "quant.aware": "true"})
    with pytest.raises(ConfigError, match="aware of quantization rounds on the CPU"):
        loop.training_device(aware)
    with pytest.raises(ConfigError, match=r"train\.device"):
        load_config(model="add", overrides={"train.device": "gpu"})


def test_the_network_trains_where_it_is_told(monkeypatch):
    """Parameters move before the optimizer takes them; a device of its own stands in for a GPU."""
    config, model = network()
    monkeypatch.setattr(loop, "training_device", lambda config: torch.device("meta"))
    data = SimpleNamespace(split=lambda name: Split())
    run = loop._Run(config, None, model, data)
    assert {p.device.type for g in run.optimizer.param_groups for p in g["params"]} == {"meta"}


class Split:
    def __len__(self):
        return 3

    def frames(self):
        return None
