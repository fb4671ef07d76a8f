"""NeuroAV: a deployment toolchain for audio-visual spiking networks on neuromorphic targets.

    import neuroav
    net = neuroav.export(model, sample, target="loihi2")
    found = net.simulate(x)
    net.report("out", x, labels)

Importing this package loads neither torch nor lava nor h5py nor numpy: what ``__all__`` names is
loaded when it is first asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuroav.api.foreign import import_netx, import_nir
    from neuroav.api.make import export, lint, load, prepare, profiles
    from neuroav.api.network import Network
    from neuroav.api.results import Energy, Recording, Report, Verification
    from neuroav.errors import NeuroavError

__version__ = "0.1.0"

__all__ = [
    "Energy",
    "Network",
    "NeuroavError",
    "Recording",
    "Report",
    "Verification",
    "__version__",
    "export",
    "import_netx",
    "import_nir",
    "lint",
    "load",
    "prepare",
    "profiles",
]

if not TYPE_CHECKING:  # type checkers would take any name for known
    _HOMES = {
        "Energy": "neuroav.api.results",
        "Network": "neuroav.api.network",
        "NeuroavError": "neuroav.errors",
        "Recording": "neuroav.api.results",
        "Report": "neuroav.api.results",
        "Verification": "neuroav.api.results",
        "export": "neuroav.api.make",
        "import_netx": "neuroav.api.foreign",
        "import_nir": "neuroav.api.foreign",
        "lint": "neuroav.api.make",
        "load": "neuroav.api.make",
        "prepare": "neuroav.api.make",
        "profiles": "neuroav.api.make",
    }

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = getattr(import_module(_HOMES[name]), name)
        globals()[name] = found  # asked for once
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
