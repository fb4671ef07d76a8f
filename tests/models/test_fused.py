"""The fused neurons against Norse's step: spikes bit for bit, gradients to rounding, less kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroav.models import _fused_loops as loops
from neuroav.models import fused
from neuroav.models.layers import SURROGATES, Lif, LifParameters

shapes = st.tuples(
    st.integers(1, 6),
    st.integers(1, 3),
    st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple),
).map(lambda s: (s[0], s[1], *s[2]))
parameters = st.builds(
    LifParameters,
    tau_mem_s=st.sampled_from([1e-3, 2e-3, 3e-3, 2e-2]),
    v_threshold=st.sampled_from([0.25, 0.5, 1.0]),
    surrogate=st.sampled_from(SURROGATES),
    alpha=st.sampled_from([0.5, 1.0, 2.0, 10.0]),
    detach_reset=st.booleans(),
    detach_state=st.booleans(),
    inclusive=st.booleans(),
)


def layout(x: torch.Tensor, order: int) -> torch.Tensor:
    """Return equal numbers that lie in memory in another order, or with gaps."""
    if order == 0:
        return x
    if order == 1:  # last axis first within a step: what channels last is to four axes
        return x.movedim(-1, 2).contiguous().movedim(2, -1)
    if order == 2:  # samples outermost
        return x.movedim(1, 0).contiguous().movedim(0, 1)
    return torch.stack((x, x + 1), dim=-1)[..., 0]  # gaps


def saved_bytes(function, *inputs) -> int:
    """Return the bytes of all tensors that autograd keeps, each storage once."""
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(*inputs)
    assert out.requires_grad
    return sum(kept.values())


@settings(max_examples=150, deadline=None)
@given(shapes, parameters, st.integers(0, 3), st.integers(0, 3), st.integers(0, 2**31))
def test_spikes_and_gradients_are_norses(shape, neuron, order, grad_order, seed):
    rng = torch.Generator().manual_seed(seed)
    # eighths meet thresholds exactly here and there
    x = layout((torch.randn(shape, generator=rng) * 24).round() / 8, order).requires_grad_()
    grad = layout(torch.randn(shape, generator=rng), grad_order)
    lif = Lif(neuron)
    ours, norse = lif(x), lif.stepwise(x)
    assert torch.equal(ours, norse)
    (found,) = torch.autograd.grad(ours, x, grad)
    (expected,) = torch.autograd.grad(norse, x, grad)
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 * scale)
    assert torch.equal(lif(x.detach()), norse)  # without gradients: nothing is kept


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_many_blocks_and_many_threads_give_the_same(surrogate, monkeypatch):
    monkeypatch.setattr(fused, "SHARE", 1000)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    torch.manual_seed(0)
    x = (torch.randn(5, 3, 2 * loops.BLOCK + 37) * 2 + 0.5).requires_grad_()
    weight = torch.randn_like(x)
    lif = Lif(LifParameters(surrogate=surrogate))
    spikes, norse = lif(x), lif.stepwise(x)
    assert 0.1 < float(norse.detach().mean()) < 0.9
    assert torch.equal(spikes, norse)
    (threaded,) = torch.autograd.grad(spikes, x, weight)
    (expected,) = torch.autograd.grad(norse, x, weight)
    torch.testing.assert_close(threaded, expected, rtol=0, atol=2e-6)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    (alone,) = torch.autograd.grad(lif(x), x, weight)
    assert torch.equal(alone, threaded)


def test_compiled_loops_are_the_torch_operations(monkeypatch):
    torch.manual_seed(0)
    for surrogate in SURROGATES:
        x = (torch.randn(4, 2, 3, 5, 7) * 2 + 0.5).requires_grad_()
        weight, lif = torch.randn_like(x), Lif(LifParameters(surrogate=surrogate))
        compiled = lif(x)
        (found,) = torch.autograd.grad(compiled, x, weight)
        with monkeypatch.context() as patch:
            patch.setattr(fused, "compiled", lambda x: False)
            by_torch = lif(x)
            (expected,) = torch.autograd.grad(by_torch, x, weight)
        assert 0.1 < float(compiled.detach().mean()) < 0.9
        assert torch.equal(compiled, by_torch)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


def test_what_is_kept_for_the_backward_pass_is_the_membrane():
    torch.manual_seed(0)
    x, lif = torch.randn(8, 4, 16, 6, 6, requires_grad=True), Lif()
    size = x.numel() * x.element_size()
    assert saved_bytes(lif, x) == size
    assert saved_bytes(lif.stepwise, x) >= 2 * size


def test_exponential_is_exact_to_two_units_in_the_last_place():
    x = np.concatenate([-np.geomspace(1e-9, 87, 4000), [0.0]]).astype(np.float32)
    found = np.array([loops.exp_negative(v) for v in x], np.float32)
    expected = np.exp(x.astype(np.float64))
    assert np.max(np.abs(found / expected - 1)) < 2 * np.finfo(np.float32).eps
    assert 0 <= loops.exp_negative(np.float32(-math.inf)) < 2e-38


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_far_from_the_threshold_gradients_are_finite(surrogate):
    x = torch.tensor([-1e30, -1e4, 1e4, 1e30]).expand(3, 1, 4).clone().requires_grad_()
    Lif(LifParameters(surrogate=surrogate))(x).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_half_precision_is_taken_to_float32():
    torch.manual_seed(0)
    x = (torch.randn(4, 2, 19) * 2 + 0.5).bfloat16().requires_grad_()
    lif = Lif()
    spikes = lif(x)
    assert spikes.dtype == torch.float32
    assert 0.05 < float(spikes.detach().mean()) < 0.9
    assert torch.equal(spikes, lif.stepwise(x.detach().float()))
    spikes.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="float32 or float64"):
        lif(torch.ones(2, 1, 3, dtype=torch.int32))


def test_an_empty_batch():
    x = torch.zeros(3, 0, 5, requires_grad=True)
    spikes = Lif()(x)
    assert spikes.shape == (3, 0, 5)
    spikes.sum().backward()
    assert x.grad.shape == x.shape


def test_other_devices_take_torch_operations_alone():
    """The device without numbers: what it refuses would need the CPU."""
    x = torch.empty(4, 2, 3, 5, device="meta", requires_grad=True)
    for surrogate in SURROGATES:
        spikes = Lif(LifParameters(surrogate=surrogate))(x)
        (grad,) = torch.autograd.grad(spikes, x, torch.empty_like(spikes))
        assert (spikes.device.type, spikes.shape) == ("meta", x.shape)
        assert (grad.device.type, grad.shape) == ("meta", x.shape)
