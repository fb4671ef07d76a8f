"""NeuroAV: a deployment toolchain for audio-visual spiking networks on neuromorphic targets.

Importing this package loads neither torch nor lava nor h5py; each module loads what it needs.
"""

__version__ = "0.1.0"
