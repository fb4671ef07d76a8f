"""The literal table of models: name -> builder from a configuration and the input shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from neuroav.errors import ConfigError, unknown_name
from neuroav.models.add import AddFusion, BranchShape, Unimodal
from neuroav.models.layers import LifParameters
from neuroav.training.config import ModelConfig

InputShapes = Mapping[str, tuple[int, int, int]]


def _common(config: ModelConfig, classes: int) -> dict:
    neuron = LifParameters(
        tau_mem_s=config.tau_mem_s,
        dt_s=config.dt_s,
        v_threshold=config.v_threshold,
        surrogate=config.surrogate,
        alpha=config.surrogate_alpha,
        detach_reset=config.detach_reset,
    )
    return {
        "classes": classes,
        "embed_dim": config.embed_dim,
        "mlp_ratio": config.mlp_ratio,
        "readout_gain": config.readout_gain,
        "neuron": neuron,
    }


def _branch(shapes: InputShapes, name: str) -> BranchShape:
    channels, rows, columns = shapes[name]
    smallest = min(min(shape[1:]) for shape in shapes.values())
    pool_first = min(rows, columns) >= 2 * smallest
    return BranchShape(channels, rows, columns, pool_first)


def _add(config: ModelConfig, shapes: InputShapes, classes: int) -> nn.Module:
    audio, visual = _branch(shapes, "audio"), _branch(shapes, "visual")
    tokens = {
        n: (b.rows // (4 if b.pool_first else 2), b.columns // (4 if b.pool_first else 2))
        for n, b in (("audio", audio), ("visual", visual))
    }
    if tokens["audio"] != tokens["visual"]:
        raise ConfigError(
            f"audio has {tokens['audio']} tokens and visual {tokens['visual']}; "
            "choose frame sizes that are equal or differ by a factor of two"
        )
    return AddFusion(audio, visual, **_common(config, classes))


def _unimodal(modality: str) -> Callable[[ModelConfig, InputShapes, int], nn.Module]:
    def build(config: ModelConfig, shapes: InputShapes, classes: int) -> nn.Module:
        return Unimodal(modality, _branch(shapes, modality), **_common(config, classes))

    return build


MODELS: dict[str, Callable[[ModelConfig, InputShapes, int], nn.Module]] = {
    "audio": _unimodal("audio"),
    "visual": _unimodal("visual"),
    "add": _add,
}


def check_model_name(name: str) -> None:
    """Raise ConfigError with near matches unless ``name`` is a model."""
    if name not in MODELS:
        raise unknown_name("model", name, MODELS, ConfigError)


def build_model(config: ModelConfig, shapes: InputShapes, classes: int) -> nn.Module:
    """Return a freshly initialised model.

    shapes: (channels, rows, columns) per step of every input the data offers. The model's
    ``inputs`` attribute names those it reads, in argument order. ConfigError for unknown names.
    """
    check_model_name(config.name)
    return MODELS[config.name](config, shapes, classes)
