"""Trainable networks on Norse neurons, one file per family, and the layers they share."""

from __future__ import annotations

from neuroav.models.registry import MODELS, build_model, check_model_name

__all__ = ["MODELS", "build_model", "check_model_name"]
