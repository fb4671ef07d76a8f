"""The literal table of models: name -> builder from a configuration and the input shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from neuroav.errors import ConfigError, unknown_name
from neuroav.models import rivals
from neuroav.models.add import AddFusion, Sizes, Unimodal
from neuroav.models.attention import CrossOptions
from neuroav.models.layers import LifParameters
from neuroav.models.scmrl import Scmrl
from neuroav.models.stems import BranchShape, token_grid
from neuroav.training.config import ZERO_SHOT, ModelConfig, ScmrlConfig

InputShapes = Mapping[str, tuple[int, int, int]]


def neuron_of(config: ModelConfig, *, detach_state: bool = False) -> LifParameters:
    """Return the neurons that a configuration asks for."""
    return LifParameters(
        tau_mem_s=config.tau_mem_s,
        dt_s=config.dt_s,
        v_threshold=config.v_threshold,
        surrogate=config.surrogate,
        alpha=config.surrogate_alpha,
        detach_reset=config.detach_reset,
        detach_state=detach_state,
    )


def _sizes(config: ModelConfig, classes: int, switches: ScmrlConfig | None = None) -> Sizes:
    detached = bool(switches and switches.switch("detach_state"))
    neuron = neuron_of(config, detach_state=detached)
    return Sizes(
        classes=classes,
        embed_dim=config.embed_dim,
        mlp_ratio=config.mlp_ratio,
        readout_gain=config.readout_gain,
        neuron=neuron,
        stem=config.stem,
        mlp_bias=bool(switches and switches.switch("mlp_bias")),
    )


def _branch(shapes: InputShapes, name: str) -> BranchShape:
    channels, rows, columns = shapes[name]
    smallest = min(min(shape[1:]) for shape in shapes.values())
    pool_first = min(rows, columns) >= 2 * smallest
    return BranchShape(channels, rows, columns, pool_first)


def _two_branches(config: ModelConfig, shapes: InputShapes) -> dict[str, BranchShape]:
    """Return both modalities' shapes; ConfigError unless their stems give equal tokens."""
    branches = {name: _branch(shapes, name) for name in ("audio", "visual")}
    tokens = {name: token_grid(config.stem, branch) for name, branch in branches.items()}
    if tokens["audio"] != tokens["visual"]:
        raise ConfigError(
            f"audio has {tokens['audio']} tokens and visual {tokens['visual']}; "
            "choose frame sizes that are equal or differ by a factor of two"
        )
    return branches


def _add(
    config: ModelConfig, shapes: InputShapes, classes: int, switches: ScmrlConfig
) -> nn.Module:
    branches = _two_branches(config, shapes)
    return AddFusion(branches["audio"], branches["visual"], _sizes(config, classes))


def _unimodal(modality: str) -> Builder:
    def build(
        config: ModelConfig, shapes: InputShapes, classes: int, switches: ScmrlConfig
    ) -> nn.Module:
        attention = cross_options(switches) if config.self_attention else None
        return Unimodal(modality, _branch(shapes, modality), _sizes(config, classes), attention)

    return build


def _scmrl(
    config: ModelConfig, shapes: InputShapes, classes: int, switches: ScmrlConfig
) -> nn.Module:
    branches = _two_branches(config, shapes)
    return Scmrl(branches, _sizes(config, classes, switches), cross_options(switches))


def _weight_attention(
    config: ModelConfig, shapes: InputShapes, classes: int, switches: ScmrlConfig
) -> nn.Module:
    return rivals.weight_attention(_two_branches(config, shapes), _sizes(config, classes))


def _sca(
    config: ModelConfig, shapes: InputShapes, classes: int, switches: ScmrlConfig
) -> nn.Module:
    branches = _two_branches(config, shapes)
    return rivals.sca(branches, _sizes(config, classes), cross_options(switches))


def _cmci(
    config: ModelConfig, shapes: InputShapes, classes: int, switches: ScmrlConfig
) -> nn.Module:
    return rivals.Cmci(_two_branches(config, shapes), _sizes(config, classes))


def cross_options(switches: ScmrlConfig) -> CrossOptions:
    """Return the cross-modal part of a network as its mode and its own switches make it."""
    return CrossOptions(
        form=switches.form,
        alpha=switches.alpha,
        heads=switches.heads,
        attention_threshold=switches.switch("attention_threshold"),
        residual_threshold=switches.switch("residual_threshold"),
        scrambled=switches.switch("scrambled"),
        spiking=switches.spiking_residual,
        join=switches.join,
        residual_gain=switches.residual_gain,
        residual_norm=switches.residual_norm,
    )


Builder = Callable[[ModelConfig, InputShapes, int, ScmrlConfig], nn.Module]

MODELS: dict[str, Builder] = {
    "audio": _unimodal("audio"),
    "visual": _unimodal("visual"),
    "add": _add,
    "scmrl": _scmrl,
    "weight-attention": _weight_attention,
    "sca": _sca,
    "cmci": _cmci,
}


def check_model_name(name: str) -> None:
    """Raise ConfigError with near matches unless ``name`` is a model."""
    if name not in MODELS and name not in ZERO_SHOT:
        raise unknown_name("model", name, (*MODELS, *ZERO_SHOT), ConfigError)


def build_model(
    config: ModelConfig, shapes: InputShapes, classes: int, switches: ScmrlConfig | None = None
) -> nn.Module:
    """Return a freshly initialised model.

    shapes: (channels, rows, columns) per step of every input the data offers. switches: of the
    cross-modal attention, for the networks that have one. The model's
    ``inputs`` attribute names those it reads, in argument order. ConfigError for unknown names.
    """
    check_model_name(config.name)
    needed = (config.name,) if config.name in ("audio", "visual") else ("audio", "visual")
    if missing := [name for name in needed if name not in shapes]:
        raise ConfigError(
            f"model {config.name!r} reads {' and '.join(needed)}, the data have no "
            f"{' and no '.join(missing)}; use model {' or '.join(map(repr, shapes))}"
        )
    if config.name in ZERO_SHOT:
        raise ConfigError(
            f"model {config.name!r} classifies by text: neuroav.models.zeroshot builds it"
        )
    return MODELS[config.name](config, shapes, classes, switches or ScmrlConfig())
