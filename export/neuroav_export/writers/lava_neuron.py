"""LIFReset with what Lava's own has not: decays of every neuron's own, a reset that subtracts."""

from __future__ import annotations

import numpy as np
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.lif.process import LIFReset


class NeuronLif(LIFReset):
    """As LIFReset; a spike sets v to 0, or takes the threshold off where ``subtract`` is true.

    du, dv: integers, one number or an array of the shape. Others as for LIFReset.
    """

    def __init__(
        self, *, du: int | np.ndarray, dv: int | np.ndarray, subtract: bool, **others
    ) -> None:
        super().__init__(**others)
        self.proc_params["neuron"] = (np.asarray(du, np.int64), np.asarray(dv, np.int64), subtract)


class PyNeuronLifModel(PyLifResetModelBitAcc):
    # Lava's decorator refuses heirs of a model that implements another process
    implements_process = NeuronLif

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self._du, self._dv, self._subtract = proc_params["neuron"]

    def run_spk(self) -> None:
        self.du, self.dv = self._du, self._dv  # Lava sets its variables after the constructor
        super().run_spk()

    def reset_voltage(self, spike_vector: np.ndarray) -> None:
        if self._subtract:
            self.v -= np.where(spike_vector, self.effective_vth, 0).astype(self.v.dtype)
        else:
            super().reset_voltage(spike_vector)
