"""Lava's own convolution, for comparison: slow, and slow to import."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.model.py.type import LavaPyType
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv

from neuroav.errors import OutOfRange
from neuroav.sim.lava.checked import Check


def stock_conv(weight: np.ndarray, **geometry: Any) -> Conv:
    """Return Lava's Conv for a cross-correlation kernel (out, in / groups, rows, columns)."""
    flipped = weight[:, :, ::-1, ::-1]  # Lava's Conv is a true convolution
    return Conv(weight=np.ascontiguousarray(np.moveaxis(flipped, 1, -1), np.int32), **geometry)


class CheckedConv(PyConvModelFixed):
    """Raises OutOfRange where the sum would be wrapped to 24 bits.

    Lava declares the geometry as int8, which cannot hold 128 groups and which NumPy 2 refuses to
    compare with 128 channels.
    """

    groups: np.ndarray = LavaPyType(np.ndarray, np.int32)

    def clamp_precision(self, x: np.ndarray) -> np.ndarray:
        check: Check = self.proc_params["check"]
        clamped = super().clamp_precision(x)
        if check.first <= self.time_step <= check.last and not np.array_equal(clamped, x):
            raise OutOfRange(
                f"{check.where}: the sum of the convolution spans {x.min()}..{x.max()}, it must "
                "fit 24 signed bits; use fewer weight bits or smaller input counts"
            )
        return clamped


CONV_MODELS = {Conv: CheckedConv}
