"""Configuration: files, overrides, and one clear sentence for everything wrong."""

from __future__ import annotations

import pytest

from neuroav.errors import ConfigError
from neuroav.training.config import dump_config, load_config, load_run_config


def test_round_trip(tmp_path):
    config = load_config(
        model="audio",
        data="av-digits",
        overrides={"train.epochs": "3", "data.preset": "hard", "model.detach_reset": "true"},
    )
    assert (config.model.name, config.train.epochs, config.data.preset) == ("audio", 3, "hard")
    (tmp_path / "config.toml").write_text(dump_config(config))
    assert load_run_config(tmp_path) == config
    assert load_config(file=tmp_path / "config.toml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train.epoch": "3"}, r"unknown configuration key 'train.epoch'.*did you mean 'train.epo"),
        ({"epochs": "3"}, "unknown configuration key 'epochs'"),
        ({"train.epochs": "0"}, r"train\.epochs: .*greater than or equal to 1, found '0'"),
        ({"train.epochs": "many"}, r"train\.epochs: .*valid integer.*found 'many'"),
        ({"model.surrogate": "relu"}, r"model\.surrogate: .*'super', 'tanh'"),
        ({"model.embed_dim": "33"}, r"model\.embed_dim: .*multiple of 2"),
    ],
)
def test_bad_overrides(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train = {", r"c\.toml: not a TOML file"),
        ("[train]\nspeed = 3", r"c\.toml: train\.speed: Extra inputs"),
        ("schema = 2", r"c\.toml: schema: Input should be 1"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(file=tmp_path / "c.toml")


def test_missing_files(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml: cannot be read"):
        load_config(file=tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="holds no config.toml, so it is no run folder"):
        load_run_config(tmp_path)
