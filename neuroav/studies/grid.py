"""What a sweep runs: every combination of values of the swept keys, with a readable name."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuroav.errors import ConfigError
from neuroav.training.config import RunConfig, load_config, load_run_config

SEED = "train.seed"  # repeats of a setting rather than settings
FLOAT = "float"  # the side that is trained; the others are its deployments
SPLITS = ("val", "test")
Value = bool | int | float | str


@dataclass(frozen=True)
class Combination:
    """One run. values: swept key -> value as the configuration holds it; name: its folder's."""

    name: str
    values: Mapping[str, Value]
    config: RunConfig

    @property
    def setting(self) -> tuple[Value, ...]:
        """The values without the seed: what several seeds repeat."""
        return tuple(v for k, v in self.values.items() if k != SEED)


def combinations(
    over: Mapping[str, Sequence[str]],
    *,
    model: str | None = None,
    data: str | None = None,
    file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> list[Combination]:
    """Return all combinations, the values of the last key changing fastest.

    over: dotted configuration key -> texts of its values, read as ``load_config`` reads those of
    ``overrides``. Raises ConfigError for an unknown key (with near matches), a value that is not
    allowed, a value given twice, and a key that is also fixed.
    """
    fixed = set(overrides or ()) | {k for k, v in _named(model, data).items() if v is not None}
    if not over:
        raise ConfigError("nothing to sweep over: give at least one key with its values")
    if both := sorted(fixed & set(over)):
        raise ConfigError(f"{both[0]} is both fixed and swept; leave one of the two out")
    found = []
    for texts in itertools.product(*over.values()):
        chosen = {**(overrides or {}), **dict(zip(over, texts, strict=True))}
        config = load_config(model=model, data=data, file=file, overrides=chosen)
        values = {key: _held(config, key) for key in over}
        found.append(Combination(_name(values), values, config))
    names = [c.name for c in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"combination {name} comes twice: give every value once")
    return found


def _named(model: str | None, data: str | None) -> dict[str, str | None]:
    return {"model.name": model, "data.name": data}


def _held(config: RunConfig, key: str) -> Value:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _name(values: Mapping[str, Value]) -> str:
    """Return for example 'alpha=0.5_seed=1'; keys in full where their short forms are equal."""
    short = {key: short_key(key) for key in values}
    if len(set(short.values())) < len(short):
        short = {key: key for key in values}
    return "_".join(f"{short[key]}={value_text(value)}" for key, value in values.items())


def short_key(key: str) -> str:
    """Return a key as people call it: 'alpha' for scmrl.alpha, 'model' for model.name."""
    return key.removesuffix(".name").rpartition(".")[2]


def value_text(value: Value) -> str:
    """Return a value as it may stand in a file's name: 0.5, 24, true, av-digits."""
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "-", text) or "-"


def check_folder(run: Path, config: RunConfig) -> None:
    """Raise ConfigError if ``run`` holds a run of another configuration than ``config``."""
    if not (run / "config.toml").exists():
        return
    stored, wanted = (c.model_dump(by_alias=True) for c in (load_run_config(run), config))
    changed = [
        f"{section}.{key} was {stored[section][key]}, is {value}"
        for section, keys in wanted.items()
        if isinstance(keys, dict)  # the schema version is no section
        for key, value in keys.items()
        if stored[section][key] != value
    ]
    if changed:
        raise ConfigError(
            f"{run}: holds a run of another configuration ({'; '.join(changed)}); "
            "sweep with the settings it was started with, or into another folder"
        )
