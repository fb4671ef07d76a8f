"""Checkpoints of the released S-CMRL code become ours, whole and exact, or one clear error."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import fake_data
import pytest
import samples
import torch
from safetensors.torch import load_file, save_file

from neuroav.errors import ConfigError, FileFormatError
from neuroav.models import build_model
from neuroav.models.released import Layout, from_released, layout_for, released_keys
from neuroav.training import loop
from neuroav.training.checkpoint import fill, read_weights
from neuroav.training.config import ModelConfig, ScmrlConfig, load_config

theirs = samples.load_script(Path(__file__).with_name("released_scmrl.py"))

SMALL = Layout(embed_dim=32, classes=6, visual_channels=2, stem="shallow")
CREMA_D = Layout(embed_dim=256, classes=6, visual_channels=3)
URBAN_SOUND = Layout(embed_dim=64, classes=10, visual_channels=3)


def published_names(deep: bool, form: str, alignment: bool) -> set[str]:
    """Return the names of a released state dict, written from the list of them."""
    found = {"head.weight", "head.bias"}
    found |= {f"av_attention.{n}.{p}" for n in ("fc", "fcs.0", "fcs.1") for p in ("weight", "bias")}

    def neurons(name: str) -> set[str]:
        return {f"{name}.threshold", f"{name}.act_fun.alpha"}

    def norm(name: str) -> set[str]:
        parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        return {f"{name}.{part}" for part in parts}

    for stem in ("audio_patch_embed", "visual_patch_embed"):
        for pattern in ("proj_{}", "proj_{}1", "proj_{}2", "proj_{}3", "rpe_{}"):
            if deep or pattern[-1] not in "23":
                found.add(f"{stem}.{pattern.format('conv')}.weight")
                found |= norm(f"{stem}.{pattern.format('bn')}")
                found |= neurons(f"{stem}.{pattern.format('lif')}")
    both = ("spatial_attn.", "temporal_attn.")
    for i in (0, 1):
        found |= {f"block.{i}.norm{n}.{p}" for n in (1, 2) for p in ("weight", "bias")}
        for branch in both if form == "spatiotemporal" else ("",):
            attention = f"block.{i}.attn.{branch}"
            for part in ("q", "k", "v", "proj"):
                found |= {f"{attention}{part}_conv.weight"} | norm(f"{attention}{part}_bn")
            for part in ("q", "k", "v", "proj", "attn", "res"):
                found |= neurons(f"{attention}{part}_lif")
        if alignment:
            found |= {f"block.{i}.trans_linear.weight", f"block.{i}.trans_linear.bias"}
            found |= neurons(f"block.{i}.trans_lif")
        for layer in (1, 2):
            fc = f"mlp.{i}.mlp.fc{layer}"
            found |= {f"{fc}_conv.weight", f"{fc}_conv.bias"} | norm(f"{fc}_bn")
            found |= neurons(f"{fc}_lif")
    return found


@pytest.mark.parametrize("stem", ["deep", "shallow"])
@pytest.mark.parametrize("form", ["spatiotemporal", "spatial", "temporal"])
@pytest.mark.parametrize("alignment", [True, False])
def test_the_table_holds_the_released_names(stem, form, alignment):
    table = released_keys(Layout(32, 6, 2, stem=stem, form=form, alignment=alignment))
    assert set(table) == published_names(stem == "deep", form, alignment)


def test_shapes_of_the_table():
    table = {name: key.shape for name, key in released_keys(CREMA_D).items()}
    for name, shape in {
        "audio_patch_embed.proj_conv.weight": (32, 1, 3, 3),
        "visual_patch_embed.proj_conv.weight": (32, 3, 3, 3),
        "visual_patch_embed.proj_conv2.weight": (128, 64, 3, 3),
        "audio_patch_embed.rpe_conv.weight": (256, 256, 3, 3),
        "audio_patch_embed.rpe_bn.running_var": (256,),
        "audio_patch_embed.rpe_bn.num_batches_tracked": (),
        "block.0.norm1.weight": (256,),
        "block.1.attn.temporal_attn.q_conv.weight": (256, 256, 1),
        "block.1.trans_linear.weight": (256, 256),
        "block.1.trans_lif.act_fun.alpha": (),
        "mlp.0.mlp.fc1_conv.weight": (1024, 256, 1),
        "mlp.0.mlp.fc2_conv.weight": (256, 1024, 1),
        "mlp.1.mlp.fc1_bn.bias": (1024,),
        "av_attention.fc.weight": (32, 256),
        "av_attention.fcs.1.weight": (256, 32),
        "head.weight": (6, 256),
    }.items():
        assert table[name] == shape, name
    shallow = released_keys(SMALL)
    assert shallow["audio_patch_embed.proj_conv.weight"].shape == (16, 1, 3, 3)
    assert shallow["audio_patch_embed.proj_conv1.weight"].shape == (32, 16, 3, 3)
    assert released_keys(Layout(32, 6, 2, join="concat"))["head.weight"].shape == (6, 64)


@pytest.mark.parametrize(
    ("layout", "used", "built"),
    [(CREMA_D, "4.204", "4.231"), (URBAN_SOUND, "0.267", "0.274")],
    ids=["crema-d", "urbansound8k"],
)
def test_parameters_are_as_many_as_published(layout, used, built):
    def million(keep) -> str:
        keys = [k for k in released_keys(layout).values() if k.learned and keep(k)]
        return f"{sum(torch.Size(k.shape).numel() for k in keys) / 1e6:.3f}"

    assert million(lambda key: key.target) == used
    assert million(lambda key: True) == built


def random_state(layout: Layout, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a released state dict in float32 under which every layer fires."""
    shapes = {name: key.shape for name, key in released_keys(layout).items()}
    values = theirs.active_values(shapes, seed)
    return {n: v.float() if v.is_floating_point() else v for n, v in values.items()}


class Recorded(dict):
    """A state dict that notes which of its names were read."""

    def __init__(self, state) -> None:
        super().__init__({n: v.double() for n, v in state.items()})
        self.read: set[str] = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        if name in self:
            self.read.add(name)
        return super().get(name, default)


def configuration(gain: float = 10.0, **changes):
    """Return (model section, switches) of a released network; defaults as ``SMALL``."""
    model = {"name": "scmrl", "stem": "shallow", "embed_dim": 32, "readout_gain": gain}
    switches = {"mode": "faithful", "heads": 16}
    for name, value in changes.items():
        (model if name in ModelConfig.model_fields else switches)[name] = value
    return ModelConfig(**model), ScmrlConfig(**switches)


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        (16, {}),
        (16, {"form": "spatial", "join": "concat"}),
        (16, {"form": "temporal", "alpha": 1.0}),
        (32, {"stem": "deep"}),
        (16, {"spiking_residual": False}),
    ],
    ids=["shallow", "spatial-concat", "temporal", "deep", "without-alignment"],
)
def test_a_released_file_gives_the_released_scores(tmp_path, size, changes):
    model_config, switches = configuration(**changes)
    shapes = {"audio": (1, size, size), "visual": (2, size, size)}
    layout = layout_for(model_config, switches, shapes, 6)
    state = random_state(layout)
    save_file(state, tmp_path / "released.safetensors")

    model = build_model(model_config, shapes, 6, switches).double().eval()
    found = from_released(read_weights(tmp_path / "released.safetensors"), layout, "file")
    fill(model, found, tmp_path / "released.safetensors")
    generator = torch.Generator().manual_seed(3)
    inputs = [
        torch.poisson(torch.full((4, 3, *s), 0.7), generator=generator).double()
        for s in shapes.values()
    ]
    with torch.no_grad():
        logits = model(*inputs)

    weights = Recorded(state)
    setting = theirs.Setting(switches.form, 16, switches.alpha, join=switches.join)
    result = theirs.run(weights, setting, *inputs)
    rates = {n: float(s.mean()) for n, s in result.spikes.items()}
    assert {n: r for n, r in rates.items() if not 0.005 <= r <= 0.9} == {}
    assert float(logits.std()) > 0.05
    torch.testing.assert_close(logits, result.logits, rtol=1e-6, atol=1e-6)
    mapped = {n for n, key in released_keys(layout).items() if key.target}
    assert {n for n in mapped if not n.endswith("num_batches_tracked")} == weights.read
    assert {int(v) for n, v in model.state_dict().items() if "num_batches" in n} == {7}


def refused(state: dict[str, torch.Tensor]) -> str:
    with pytest.raises(FileFormatError, match=r"^file: no released S-CMRL of this") as error:
        from_released(state, SMALL, "file")
    return str(error.value).partition("configuration: ")[2]


@pytest.mark.parametrize(
    "name",
    [
        "audio_patch_embed.proj_conv.weight",
        "block.1.attn.temporal_attn.k_bn.running_var",
        "block.0.attn.spatial_attn.res_lif.threshold",
        "block.0.norm1.bias",
        "av_attention.fcs.1.weight",
        "mlp.1.mlp.fc2_bn.num_batches_tracked",
        "head.bias",
    ],
)
def test_one_wrong_key_is_named(name):
    state = random_state(SMALL)
    value = state.pop(name)
    assert refused(state) == f"missing {name}"
    assert refused({**state, f"{name}s": value}) == f"left over {name}s; missing {name}"
    found, wanted = (*value.shape, 1), tuple(value.shape)
    reshaped = {**state, name: value.reshape(found)}
    assert refused(reshaped) == f"{name} has shape {found}, released is {wanted}"


def test_thresholds_widths_and_kinds_of_numbers_are_checked():
    state = random_state(SMALL)
    used, unused = (f"block.0.attn.spatial_attn.{n}_lif.threshold" for n in ("attn", "res"))
    width, count = "mlp.0.mlp.fc1_lif.act_fun.alpha", "mlp.0.mlp.fc1_bn.num_batches_tracked"
    from_released({**state, unused: torch.tensor(0.5)}, SMALL, "file")
    wrong = {used: torch.tensor(0.5), width: torch.tensor(2.0), count: torch.tensor(3.5)}
    wrong["head.bias"] = torch.zeros(6, dtype=torch.int64)
    assert refused({**state, **wrong}).split("; ") == [
        f"{used} is 0.5, the faithful network computes with 1",
        "head.bias is of torch.int64, released are floating-point numbers",
        f"{count} is of torch.float32, released are whole numbers",
        f"{width} is 2, the faithful network computes with 4",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "add"}, "found model add with 'faithful'"),
        ({"mode": "correct"}, "found model scmrl with 'correct'; add --model scmrl --set scmrl.m"),
        ({"stem": "compact"}, "model.stem is compact, not deep or shallow$"),
        ({"residual_norm": True}, "scmrl.residual_norm is True, not false"),
        ({"residual_gain": 2.0}, "scmrl.residual_gain is 2.0, not 1"),
        ({"heads": 4, "form": "mask"}, "scmrl.form is mask, not any but mask; scmrl.heads is 4"),
        ({"v_threshold": 0.5}, "model.v_threshold is 0.5, not 1$"),
        ({"tau_mem_s": 4e-3}, "model.tau_mem_s is 0.004, not 2 model.dt_s$"),
        ({"attention_threshold": 0.5}, "scmrl.attention_threshold is 0.5, not 1.0$"),
        ({"scrambled": False}, "scmrl.scrambled is False, not true$"),
    ],
)
def test_only_the_released_network_takes_released_weights(changes, message):
    shapes = {"audio": (1, 16, 16), "visual": (2, 16, 16)}
    assert layout_for(*configuration(gain=1.0), shapes, 6) == SMALL
    with pytest.raises(ConfigError, match=message):
        layout_for(*configuration(**changes), shapes, 6)


def write(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """Write a state dict as safetensors, or as the released training script does."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state, "optimizer": {"state": {}}}, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.pth.tar"])
def test_training_starts_from_a_released_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr(loop, "load_data", fake_data.load_data)
    monkeypatch.setattr(samples, "SHAPES", {"audio": (1, 8, 8), "visual": (2, 8, 8)})
    layout = Layout(16, 3, 2, stem="shallow", readout_gain=10.0)
    state = random_state(layout)
    settings = {"model.stem": "shallow", "model.embed_dim": "16", "scmrl.heads": "16",
                "train.epochs": "1", "train.learning_rate": "1e-12", "data.steps": "4"}  # fmt: skip
    path = write(tmp_path / name, state)
    config = load_config(model="scmrl", overrides={**settings, "scmrl.mode": "faithful"})
    loop.train(config, tmp_path / "run", init_from=path, cache_dir=tmp_path)
    end = load_file(tmp_path / "run" / "model.safetensors")
    for key, value in from_released(state, layout, "file").items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(end[key], value, msg=key)
    wrong = load_config(model="scmrl", overrides=settings)
    with pytest.raises(ConfigError, match=r"scmrl\.mode = 'faithful', found model scmrl with 'cor"):
        loop.train(wrong, tmp_path / "wrong", init_from=path, cache_dir=tmp_path)
    assert not (tmp_path / "wrong").exists()


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_that_needs_more_than_tensors_is_refused(tmp_path, zipped):
    path, mark, weights = tmp_path / "w.pth", tmp_path / "owned", {"a": torch.zeros(3)}
    for content, needed in (
        ({"state_dict": weights, "extra": Hostile(mark)}, f"{os.system.__module__}.system"),
        ({"state_dict": weights, "args": argparse.Namespace(lr=1.0)}, "argparse.Namespace"),
    ):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(FileFormatError, match=rf"w\.pth: refused \(it needs {needed}\); only"):
            read_weights(path)
    path.write_bytes(pickle.dumps({"state_dict": Hostile(mark)}))
    with pytest.raises(FileFormatError, match=r"w\.pth: refused \(not a file of tensors\)"):
        read_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_a_cut_file_is_refused(tmp_path, zipped):
    path = tmp_path / "w.pth"
    state = {f"name{i}": torch.randn(40) for i in range(10)}
    torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    assert set(read_weights(path)) == set(state)
    for part in range(0, 100, 7):
        path.write_bytes(whole[: len(whole) * part // 100])
        with pytest.raises(FileFormatError, match=r"w\.pth: refused \("):
            read_weights(path)
    path = write(tmp_path / "w.safetensors", state)
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"w\.safetensors: not a safetensors file"):
            read_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds no weights by name under 'state_dict'"),
        ({"a": torch.zeros(1)}, "holds no weights by name under 'state_dict'"),
        ({"state_dict": {3: torch.zeros(1)}}, "holds no weights by name under 'state_dict'"),
        ({"state_dict": {"a": torch.zeros(1), "b": 3}}, r"these are no tensors: \['b'\]"),
    ],
)
def test_a_torch_file_without_weights_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(FileFormatError, match=message):
        read_weights(tmp_path / "w.pth")
