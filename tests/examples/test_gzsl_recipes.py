"""The recipes of STFT's published rows run end to end, on made-up files of the true layout."""

import json

import pytest
import samples
from click.testing import CliRunner
from gzsl_named import tiny_benchmark

from neuroav.cli.group import cli
from neuroav.training.config import load_config

RECIPES = samples.ROOT / "examples" / "recipes"
SETS = ("ucf", "vggsound", "activitynet")
SIZES = {
    "train.epochs": 1,
    "train.batch_size": 8,
    "zsl.batches": 2,
    "zsl.hidden_dim": 8,
    "zsl.embed_dim": 8,
    "zsl.output_dim": 4,
    "stft.heads": 2,
    "stft.rank": 3,
    "data.steps": 3,
}


def _run(*arguments):
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"], env={"NEUROAV_DATA": None})
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def _train(recipe, root, out, **more):
    given = {**SIZES, **more}
    sets = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    where = ("--data-root", root, "--cache-dir", root.parent / "cache")
    _run("train", "--config", recipe, "--out", out, *sets, *where)
    return _run("evaluate", out, *where)


@pytest.mark.parametrize("name", SETS)
def test_recipe_states_the_published_configuration(name):
    """Values of the file go above the defaults of stft, and what it leaves out is stft's."""
    config = load_config(file=RECIPES / f"{name}-gzsl.toml")
    assert (config.model.name, config.data.name) == ("stft", f"{name}-gzsl")
    assert (config.data.preset, config.data.steps) == ("cls", 10)
    assert config.zsl.text_alignment == "avca_compat"
    assert (config.zsl.embed_dim, config.stft.rank, config.train.epochs) == (512, 60, 60)
    assert config.train.learning_rate == 1e-3
    assert config.train.weight_decay == 1e-5
    assert config.model.dt_s / config.model.tau_mem_s == 0.5  # tau of two steps
    # The defaults of the model, not those of networks that read events.
    assert load_config(model="stft", data=f"{name}-gzsl").train.batch_size == 64
    overrides = {"data.preset": "cls-clean", "zsl.text_alignment": "by_name"}
    clean = load_config(file=RECIPES / f"{name}-gzsl.toml", overrides=overrides)
    assert (clean.data.preset, clean.zsl.text_alignment) == ("cls-clean", "by_name")
    assert clean.stft == config.stft


@pytest.mark.parametrize("name", SETS)
def test_recipe_comments_state_source_defects_and_commands(name):
    text = (RECIPES / f"{name}-gzsl.toml").read_text()
    for said in ("2407.08130", "Best guess", "Realistic here", "avca_compat", "cls-clean",
                 f"--config examples/recipes/{name}-gzsl.toml"):  # fmt: skip
        assert said in text


@pytest.mark.parametrize(("name", "clean"), [*((name, False) for name in SETS), ("ucf", True)])
def test_recipe_runs_end_to_end(name, clean, tmp_path):
    root, recipe = tiny_benchmark(tmp_path, f"{name}-gzsl", "cls"), RECIPES / f"{name}-gzsl.toml"
    more = {"data.preset": "cls-clean", "zsl.text_alignment": "by_name"} if clean else {}
    found = _train(recipe, root, tmp_path / "run", **more)
    assert {"seen", "unseen", "hm", "zsl"} <= set(found)
    assert found["samples"] > 20
    stored = load_config(file=tmp_path / "run/config.toml")
    assert stored.data.preset == ("cls-clean" if clean else "cls")
    assert stored.zsl.text_alignment == ("by_name" if clean else "avca_compat")
    assert stored.zsl.patience == 3
