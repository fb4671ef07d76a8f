"""Lava's own models with a range check in front.

The arithmetic is inherited, not repeated: where Lava would wrap or saturate, these raise OutOfRange
naming the population. They stand in for the stock models through the run configuration. What to
check comes in the process parameter ``check``, set by ``set_check``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from lava.proc.graded.models import PyGradedVecModelFixed
from lava.proc.lif.models import PyLifResetModelBitAcc
from lava.proc.prodneuron.models import PyProdNeuronModelFixed

from neuroav.fixed import Arithmetic, check_range, lif_step
from neuroav.integer import PRODUCT_BITS


@dataclass(frozen=True)
class Check:
    """where: name for the error. first, last: time steps that belong to samples (the steps
    before and after carry no frames and may hold anything). arith: the registers. message: largest
    magnitude of a graded message, None for what its payload holds."""

    where: str
    first: int
    last: int
    arith: Arithmetic
    message: int | None = None

    @property
    def payload(self) -> int:
        return (1 << (self.arith.payload_bits - 1)) - 1

    @property
    def largest(self) -> int:
        """Largest magnitude of a graded message."""
        return self.payload if self.message is None else self.message


def set_check(process, check: Check) -> None:
    """Give ``process`` (LIFReset, GradedVec, ProdNeuron or Conv) the check its model makes."""
    process.proc_params["check"] = check


def set_neuron(process, decays: tuple[np.ndarray, np.ndarray] | None, subtract: bool) -> None:
    """Give a LIFReset decays of u and v by neuron, int64 of its shape, or a subtracting reset."""
    if decays is not None or subtract:
        process.proc_params["neuron"] = (decays, subtract)


def record_voltage(process, file: str) -> None:
    """Have the model of a LIFReset write ``v`` after time step t to row t - 1 of an existing
    ``.npy`` file, (steps, *shape)."""
    process.proc_params["voltage"] = file


class CheckedLifReset(PyLifResetModelBitAcc):
    """Raises OutOfRange where ``u`` would wrap or ``v`` saturate; records ``v`` on request.

    A port of another process to ``v`` would do, but costs a process each and a phase per step.
    What Lava's own lacks comes in by ``set_neuron``: decays by neuron, and a reset that subtracts.
    """

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self._decays, self._subtract = proc_params.get("neuron", (None, False))
        file = proc_params.get("voltage")
        self._voltages = np.load(file, mmap_mode="r+") if file else None

    def run_spk(self) -> None:
        if self._decays is not None:  # Lava sets its variables after the constructor
            self.du, self.dv = self._decays
        super().run_spk()
        if self._voltages is not None:
            self._voltages[self.time_step - 1] = self.v

    def reset_voltage(self, spike_vector: np.ndarray) -> None:
        if self._subtract:
            self.v -= np.where(spike_vector, self.effective_vth, 0).astype(self.v.dtype)
        else:
            super().reset_voltage(spike_vector)

    def subthr_dynamics(self, activation_in: np.ndarray) -> None:
        check: Check = self.proc_params["check"]
        if check.first <= self.time_step <= check.last:
            self._refuse(activation_in.astype(np.int64), check)
        super().subthr_dynamics(activation_in)

    def _refuse(self, a: np.ndarray, check: Check) -> None:
        arith = check.arith
        current = int(np.abs(self.u).max()) + (int(np.abs(a).max()) << arith.input_shift)
        voltage = int(np.abs(self.v).max()) + current + int(np.abs(self.effective_bias).max())
        if (current < 1 << (arith.current_bits - 1)) and (voltage < 1 << (arith.voltage_bits - 1)):
            return  # no neuron can leave its registers in this step
        lif_step(
            self.u.astype(np.int64),
            self.v.astype(np.int64),
            a,
            self.effective_bias,
            decay_u=self.du if self._decays is not None else int(self.du),
            decay_v=self.dv if self._decays is not None else int(self.dv),
            threshold=self.vth,
            arith=arith,
            where=check.where,
        )


class CheckedGradedVec(PyGradedVecModelFixed):
    """Raises OutOfRange where a message would not fit its payload."""

    a_in: Any

    def run_spk(self) -> None:
        if not isinstance(self.a_in, _Tap):
            self.a_in = _Tap(self.a_in, self._refuse)
        super().run_spk()

    def _refuse(self, a: np.ndarray) -> None:
        check: Check = self.proc_params["check"]
        if check.first <= self.time_step <= check.last:
            check_range(a, check.largest, check.where, "the graded message")


class CheckedProdNeuron(PyProdNeuronModelFixed):
    """Raises OutOfRange where a product would wrap, or its message not fit."""

    a_in1: Any
    a_in2: Any
    exp: Any

    def run_spk(self) -> None:
        if not isinstance(self.a_in1, _Tap):
            self.a_in1 = _Tap(self.a_in1, self._keep)
            self.a_in2 = _Tap(self.a_in2, self._refuse)
        super().run_spk()

    def _keep(self, a: np.ndarray) -> None:
        self._first = a

    def _refuse(self, a: np.ndarray) -> None:
        check: Check = self.proc_params["check"]
        if check.first <= self.time_step <= check.last:
            shift = self.exp.item()
            most = (1 << PRODUCT_BITS) - 1 if shift else check.payload
            whole = check_range(self._first.astype(np.int64) * a, most, check.where, "the product")
            check_range(whole >> shift, check.largest, check.where, "the product's message")


class _Tap:
    """A receiving port that shows what it receives to ``look`` before it hands it on."""

    def __init__(self, port, look) -> None:
        self._port, self._look = port, look

    def recv(self) -> np.ndarray:
        data = self._port.recv()
        self._look(data)
        return data
