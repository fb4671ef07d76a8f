"""SANA-FE, an architecture simulator for energy and latency: our recorded spikes on our placement.

J. A. Boyle, M. Plagge, S. G. Cardwell, F. S. Chance, A. Gerstlauer, IEEE TCAD 44(8), 2025,
doi:10.1109/TCAD.2025.3537971. ``docs/sanafe.md`` says what is written, run and compared.
"""

from neuroav.sim.sanafe.arch import Coefficients, coefficients
from neuroav.sim.sanafe.parity import SanafeTerms, compare, expected

__all__ = ["Coefficients", "SanafeTerms", "coefficients", "compare", "expected"]
