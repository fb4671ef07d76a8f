"""Parameters of a layer of neurons, as training and the compiler share them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SURROGATES = ("super", "tanh", "triangle", "heavi_erfc", "circ")


@dataclass(frozen=True)
class LifParameters:
    """Parameters of one layer of neurons, in seconds and membrane units.

    tau_mem_s: membrane time constant; dt_s: length of a step; surrogate, alpha: Norse's threshold
    method and its width ('tanh' with alpha 2 is sech^2(2 (v - v_threshold)), S-CMRL's own);
    detach_reset: stop the gradient through the reset (Norse does not); detach_state: let no
    gradient cross from one step to the next; inclusive: spike at the threshold too, v' >= v_th
    (as the next smaller float32 in Norse's v' > v_th).
    """

    tau_mem_s: float = 2e-3
    dt_s: float = 1e-3
    v_threshold: float = 1.0
    surrogate: str = "tanh"
    alpha: float = 2.0
    detach_reset: bool = False
    detach_state: bool = False
    inclusive: bool = False

    @property
    def norse_threshold(self) -> float:
        """v_th of Norse's strict comparison."""
        below = np.nextafter(np.float32(self.v_threshold), np.float32(-np.inf))
        return float(below) if self.inclusive else self.v_threshold
