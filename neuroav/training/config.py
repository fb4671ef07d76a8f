"""One run's configuration: everything needed to rebuild a model, its data and its training.

Stored as ``RUN/config.toml``. Values come from defaults, then a file, then ``--set key=value``;
an unknown key or a bad value is a ConfigError with near matches.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroav.errors import ConfigError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Which data, and how events become frames."""

    name: str = "av-digits"
    preset: str = "default"
    seed: int = Field(0, ge=0)
    steps: int = Field(8, ge=1, le=64)
    visual_size: int = Field(16, ge=4, le=128)
    augment: bool = True


class ModelConfig(_Section):
    """Which network, its sizes and its neurons. self_attention: of the unimodal networks."""

    name: str = "add"
    stem: Literal["compact", "shallow", "deep"] = "compact"
    embed_dim: int = Field(32, ge=2, multiple_of=2)
    mlp_ratio: int = Field(4, ge=1)
    readout_gain: float = Field(10.0, gt=0)
    tau_mem_s: float = Field(2e-3, gt=0)
    dt_s: float = Field(1e-3, gt=0)
    v_threshold: float = Field(1.0, gt=0)
    surrogate: Literal["super", "tanh", "triangle", "heavi_erfc", "circ"] = "tanh"
    surrogate_alpha: float = Field(2.0, gt=0)
    detach_reset: bool = True
    self_attention: bool = False


class ScmrlConfig(_Section):
    """Cross-modal attention of ``scmrl`` (``neuroav.models.scmrl``).

    mode: 'faithful' is as released: thresholds 1, steps and heads exchanged after temporal
    attention, no gradient from step to step, biases in the MLP. 'correct' is as meant: thresholds
    0.5, temporal order kept, gradients through time, no biases that batch norm removes. A switch
    that is set overrides its mode. residual_gain, residual_norm: a factor before, and batch norm
    after the linear layer that makes the residual; neither is in the published model.
    alignment_weight, temperature: of the semantic alignment loss.
    """

    mode: Literal["faithful", "correct"] = "correct"
    form: Literal["spatial", "temporal", "spatiotemporal", "mask"] = "spatiotemporal"
    heads: int = Field(4, ge=1)
    alpha: float = Field(1.5, ge=0)
    join: Literal["add", "concat"] = "add"
    spiking_residual: bool = True
    residual_gain: float = Field(1.0, gt=0)
    residual_norm: bool = False
    alignment_weight: float = Field(1.0, ge=0)
    temperature: float = Field(0.1, gt=0)
    attention_threshold: float | None = Field(None, gt=0)
    residual_threshold: float | None = Field(None, gt=0)
    scrambled: bool | None = None
    detach_state: bool | None = None
    mlp_bias: bool | None = None

    def switch(self, name: str) -> Any:
        """Return a switch as set, or what its mode makes of it."""
        value = getattr(self, name)
        return _MODES[self.mode][name] if value is None else value


_MODES: dict[str, dict[str, Any]] = {
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


class ZeroShotConfig(_Section):
    """Zero-shot networks: protocol, sizes and losses (``neuroav.training.zeroshot``).

    text_alignment: which text belongs to a class: 'by_name', or 'avca_compat', the rows that the
    reference loader takes (docs/zero-shot.md). scaling: of the inputs by statistics of the
    training samples: 'standard' (each feature to mean 0, deviation 1), 'maximum' (each modality to
    0..1) or 'none'. query: what is compared with a class: the sum of both modalities' distances,
    or one of them. loss: 'stft' (half triplets, half regression) or 'avca' (ten triplets and
    regression, unweighted). bn_momentum: of batch norms before outputs; the published 0.99 keeps
    little but the last batch. bias_levels: calibration tries this many seen-class biases.
    patience: epochs without a better validation HM before the rate falls to a tenth.
    """

    text_alignment: Literal["by_name", "avca_compat"] = "by_name"
    scaling: Literal["standard", "maximum", "none"] = "standard"
    query: Literal["both", "audio", "visual"] = "both"
    loss: Literal["stft", "avca"] = "stft"
    hidden_dim: int = Field(512, ge=2)
    embed_dim: int = Field(300, ge=2)
    output_dim: int = Field(64, ge=2)
    dropout_encoder: float = Field(0.2, ge=0, lt=1)
    dropout_projection: float = Field(0.3, ge=0, lt=1)
    dropout_text: float = Field(0.1, ge=0, lt=1)
    bn_momentum: float = Field(0.1, gt=0, le=1)
    margin: float = Field(1.0, gt=0)
    batches: int = Field(500, ge=1)
    bias_levels: int = Field(61, ge=2)
    patience: int = Field(3, ge=0)


class StftConfig(_Section):
    """Switches of ``stft`` (``neuroav.models.zeroshot``); each is one reading of the paper.

    snn: the spiking branch as it is, without training ('frozen'), replaced by ReLU units of the
    same sizes ('relu'), or left out ('none', the semantic features take its place in the fusion).
    knowledge: the latent knowledge combiner, with so many slots. pooling: global-local pooling
    'gate' (1 + sigmoid(P)) I, 'paper' sigmoid(P I + I), 'mean' I + beta mean(I), or none.
    time_factor: weights of the steps by sample, learned but fixed, or uniform.
    dynamic_threshold: by entropy, by spike count, or none. fusion, rank: full Tucker core or CP.
    cross_modal: transformer over both modalities, one linear layer, or none. norm: of the spiking
    branch, per sample or per feature over the batch.
    """

    snn: Literal["trained", "frozen", "relu", "none"] = "trained"
    knowledge: bool = True
    knowledge_slots: int = Field(4, ge=1)
    heads: int = Field(8, ge=1)
    pooling: Literal["gate", "paper", "mean", "none"] = "gate"
    time_factor: Literal["sample", "fixed", "uniform"] = "sample"
    dynamic_threshold: Literal["entropy", "count", "none"] = "entropy"
    fusion: Literal["tucker", "cp"] = "tucker"
    rank: int = Field(60, ge=1)
    cross_modal: Literal["transformer", "linear", "none"] = "transformer"
    norm: Literal["layer", "batch"] = "layer"


class TrainConfig(_Section):
    """How to train.

    modality_dropout: share of the samples of a batch that lose one modality, each with the same
    chance, in networks of two and more. threads: of torch and of the neurons' loops. recompute:
    keep less for the backward pass and compute it twice, gradients equal. precision: of
    convolutions and linear layers in training; neurons are float32 in both, and 'bfloat16' changes
    some spikes (docs/training-speed.md). device: 'cpu', or 'cuda' with an optional number; a GPU
    adds in another order, so now and then a spike differs. The last three are for networks that
    read events, and device also for training that is not aware of quantization.
    """

    epochs: int = Field(24, ge=1)
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(5e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    modality_dropout: float = Field(0.0, ge=0, le=1)
    seed: int = Field(0, ge=0)
    threads: int = Field(1, ge=1)
    recompute: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$")


class QuantConfig(_Section):
    """Quantization-aware training: with which integers, and whether at all.

    layer_bits: width of single layers, by name (``quantization.Options``).
    """

    aware: bool = False
    bits: int = Field(8, ge=2, le=8)
    layer_bits: dict[str, int] = Field(default_factory=dict)
    calibration: Literal["max", "percentile", "mse"] = "mse"
    per_channel: bool = False
    target: str = "loihi2"


SECTIONS: dict[str, type[_Section]] = {
    "data": DataConfig,
    "model": ModelConfig,
    "scmrl": ScmrlConfig,
    "zsl": ZeroShotConfig,
    "stft": StftConfig,
    "train": TrainConfig,
    "quant": QuantConfig,
}


class RunConfig(_Section):
    """All sections. ``schema`` is the version of this layout."""

    schema_version: Literal[1] = Field(1, alias="schema")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    scmrl: ScmrlConfig = ScmrlConfig()
    zsl: ZeroShotConfig = ZeroShotConfig()
    stft: StftConfig = StftConfig()
    train: TrainConfig = TrainConfig()
    quant: QuantConfig = QuantConfig()


# Zero-shot networks train in another way; each value is a default like any other.
_ZERO_SHOT_DEFAULTS: dict[str, dict[str, Any]] = {
    "data": {"name": "av-attributes", "steps": 10},
    "train": {
        "epochs": 50,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "weight_decay": 1e-5,
        "warmup_epochs": 0.0,
    },
}
MODEL_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "avca": {**_ZERO_SHOT_DEFAULTS, "zsl": {"loss": "avca"}},
    "stft": _ZERO_SHOT_DEFAULTS,
    # spikes at 0.5 say more in ten steps than at 1 (docs/zero-shot.md)
    "stft-chip": {**_ZERO_SHOT_DEFAULTS, "model": {"v_threshold": 0.5}},
}
ZERO_SHOT = tuple(MODEL_DEFAULTS)  # the models that classify by text
# What both a model and its data ask for: spikes are coarser features than real numbers, so more of
# them, and they take longer to learn.
_BOTH_DEFAULTS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("stft-chip", "av-attributes"): {
        "train": {"epochs": 30},
        "zsl": {"hidden_dim": 256, "embed_dim": 128},
    },
}
# With these data, before the defaults of a model: some hundred samples are learnt in fewer steps,
# and the published benchmarks have feature sets for presets.
_DATA_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "av-attributes": {
        "train": {"epochs": 20},
        "zsl": {
            "batches": 50,
            "hidden_dim": 128,
            "embed_dim": 64,
            "output_dim": 32,
            "dropout_encoder": 0.0,
            "dropout_projection": 0.0,
        },
    },
    **{f"{name}-gzsl": {"data": {"preset": "main"}} for name in ("ucf", "vggsound", "activitynet")},
}


def load_config(
    *,
    model: str | None = None,
    data: str | None = None,
    file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
) -> RunConfig:
    """Return the configuration of a run; ConfigError names file, key, found and allowed.

    overrides: dotted key -> text, e.g. {"train.epochs": "3"}; the text is read as a TOML value, and
    as a plain string where that fails.
    """
    tree: dict[str, Any] = _read(file) if file else {}
    if model is not None:
        tree.setdefault("model", {})["name"] = model
    if data is not None:
        tree.setdefault("data", {})["name"] = data
    for key, text in (overrides or {}).items():
        section, _, name = key.partition(".")
        _check_key(section, name, key)
        tree.setdefault(section, {})[name] = _value(text)
    return _validate(_with_defaults(tree), str(file) if file else "configuration")


def _with_defaults(tree: dict[str, Any]) -> dict[str, Any]:
    """Return ``tree`` above the defaults of its model, and these below those of its data."""
    model = _name(tree, "model")
    if model not in MODEL_DEFAULTS:
        return _above({"data": _frame_sizes(_name(tree, "data"))}, tree)
    data = _name(_above(MODEL_DEFAULTS[model], tree), "data")
    special = (_BOTH_DEFAULTS.get((model, data), {}), _DATA_DEFAULTS.get(data, {}))
    for defaults in (*special, MODEL_DEFAULTS[model]):
        tree = _above(defaults, tree)
    return tree


def _frame_sizes(data: str) -> dict[str, Any]:
    """Return the sizes that a data set's frames have by default; nothing for an unknown one."""
    from neuroav.data import DATASETS  # what is in the registry is known there alone

    info = DATASETS.get(data)
    return {} if info is None else {"steps": info.steps, "visual_size": info.visual_size}


def _name(tree: dict[str, Any], section: str) -> str:
    """Return the name that a section gives, '' if none."""
    values = tree.get(section)
    name = values.get("name") if isinstance(values, dict) else None
    return name if isinstance(name, str) else ""


def _above(defaults: Mapping[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """Return ``tree`` with what it lacks of ``defaults``, section by section."""
    found = dict(tree)
    for section, values in defaults.items():
        given = tree.get(section, {})
        if isinstance(given, dict):
            found[section] = {**values, **given}
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not a TOML file: {error}") from None


def _check_key(section: str, name: str, key: str) -> None:
    known = {f"{s}.{n}" for s, cls in SECTIONS.items() for n in cls.model_fields}
    if f"{section}.{name}" not in known:
        raise unknown_name("configuration key", key, known, ConfigError)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _validate(tree: dict[str, Any], where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}, found {str(e['input'])[:60]!r}"
            for e in error.errors()
        )
        raise ConfigError(f"{where}: {problems}") from None


def dump_config(config: RunConfig) -> str:
    """Return the configuration as TOML text that ``load_config`` reads back to the same value."""
    return tomli_w.dumps(config.model_dump(by_alias=True, exclude_none=True))


def load_run_config(run: Path) -> RunConfig:
    """Return the configuration stored in a run folder."""
    path = Path(run) / "config.toml"
    if not path.is_file():
        raise ConfigError(
            f"{run}: holds no config.toml, so it is no run folder; "
            "make one with `neuroav train --model add --data av-digits --out RUN`"
        )
    return _validate(_read(path), str(path))
