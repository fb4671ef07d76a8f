"""What the machine is and can do: measured in the same run as what is held against it."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

PACKAGES = ("torch", "numpy", "numba", "norse", "lava-nc")


def rates() -> tuple[float, float]:
    """Return bytes per second of a copy (read and written) and multiply-accumulates per second of a
    float32 matrix product, one thread each, the best of five."""
    a, b = np.ones(1 << 26, np.float32), np.empty(1 << 26, np.float32)
    x = torch.rand(1024, 1024)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    copies, products = [], []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(b, a)
        copies.append(2 * a.nbytes / (time.perf_counter() - start))
        start = time.perf_counter()
        x @ x
        products.append(1024**3 / (time.perf_counter() - start))
    torch.set_num_threads(before)
    return max(copies), max(products)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Return the processor's name, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def facts() -> dict[str, str]:
    """Return what a reader must know to place a figure, as text."""
    bandwidth, rate = rates()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": f"{processor()}, {cores()} cores, {memory:.0f} GiB",
        "copy, one core": f"{bandwidth / 1e9:.1f} GB/s read and written",
        "float32 matrix product, one core": f"{rate / 1e9:.1f} G multiply-accumulates/s",
        "load when started": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
    }
