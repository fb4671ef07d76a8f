"""A run folder's files: weights as safetensors, ``last.ckpt`` weights-only, all written whole."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from neuroav.errors import FileFormatError
from neuroav.files import written_whole

WEIGHTS, LAST, CONFIG, METRICS = "model.safetensors", "last.ckpt", "config.toml", "metrics.json"
_TORCH_FILES = (".pt", ".pth", ".tar")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the model's parameters and buffers as safetensors."""
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    with written_whole(path) as temporary:
        save_file(state, temporary)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a safetensors file, or those under ``state_dict`` of a torch file.

    A torch file (.pt, .pth, .tar) is read weights-only, so opening it runs no code of its own.
    FileFormatError for everything else, a damaged file, or one that needs more than tensors and
    plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; a finished `neuroav train` writes it")
    if path.suffix in _TORCH_FILES:
        return _torch_weights(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FileFormatError(f"{path}: not a safetensors file ({error}); train again") from None


def _torch_weights(path: Path) -> dict[str, torch.Tensor]:
    content = _read_plain(path, "save its state_dict alone, as safetensors")
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise FileFormatError(f"{path}: holds no weights by name under 'state_dict'")
    strange = sorted(n for n, v in state.items() if not isinstance(v, torch.Tensor))
    if strange:
        raise FileFormatError(f"{path}: under 'state_dict' these are no tensors: {strange}")
    return state


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill ``model`` from a file of ``read_weights`` whose names and shapes match exactly.

    FileFormatError lists every missing, left-over or misshapen name, and NaN or infinite values.
    """
    fill(model, read_weights(path), path)


def fill(model: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Fill ``model`` with tensors by name; ``path`` is where they come from, see load_weights."""
    expected = model.state_dict()
    problems = [f"missing {n}" for n in expected if n not in state]
    problems += [f"left over {n}" for n in state if n not in expected]
    problems += [
        f"{n} has shape {tuple(state[n].shape)}, the model needs {tuple(v.shape)}"
        for n, v in expected.items()
        if n in state and state[n].shape != v.shape
    ]
    problems += [
        f"{n} holds NaN or infinite values"
        for n, v in state.items()
        if v.is_floating_point() and not torch.isfinite(v).all()
    ]
    if problems:
        raise FileFormatError(f"{path}: does not fit the model: " + "; ".join(sorted(problems)))
    model.load_state_dict(state)


def save_last(path: Path, state: Mapping[str, Any]) -> None:
    """Write everything a resumed run needs (tensors and plain values only)."""
    with written_whole(path) as temporary:
        torch.save(dict(state), temporary)


def load_last(path: Path) -> dict[str, Any]:
    """Return what ``save_last`` wrote, read weights-only; FileFormatError for anything else."""
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file, nothing to resume; train without --resume")
    return _read_plain(path, "train again into another folder")


def _read_plain(path: Path, hint: str) -> Any:
    """Return a torch file's tensors and plain values; FileFormatError if it is or needs more."""
    try:
        with warnings.catch_warnings():  # torch warns about foreign pickles before refusing them
            warnings.simplefilter("ignore")
            return torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # a damaged file fails anywhere in torch's reader
        raise FileFormatError(
            f"{path}: refused ({_reason(error)}); only tensors and plain values are read; {hint}"
        ) from None


def _reason(error: Exception) -> str:
    """Return one line; torch's own first line advises to run what the file asks for."""
    if needed := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it needs {needed[1]}"
    if isinstance(error, pickle.UnpicklingError):
        return "not a file of tensors"
    return (str(error).splitlines() or ["it is empty"])[0]
