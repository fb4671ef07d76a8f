"""Freed memory stays with the process while it trains, or simulates on several threads.

A training step frees some hundred large tensors and asks for as many again, and so does a batch of
samples. The C library gives each back to the system and gets fresh pages, which the system must
clear: on a CPU that can take longer than the arithmetic (docs/training-speed.md).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt(3) of the GNU C library: parameters, values meanwhile, and the largest that its own
# adaptation reaches, which stay in force afterwards
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEEP = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_THRESHOLD: 2**30}
_AFTER = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25}


@contextmanager
def kept_memory(*, shared: bool = False) -> Iterator[bool]:
    """Return a context in which freed memory stays with the process, entered with whether it does.

    It does with the GNU C library; elsewhere nothing changes. Freed pages go back at the end.
    shared: threads that start meanwhile take from one heap, so that one uses what another freed.
    """
    library = _gnu_c_library()
    if library is None:
        yield False
        return
    keep, after = dict(_KEEP), dict(_AFTER)
    if shared:
        keep[_ARENA_MAX], after[_ARENA_MAX] = 1, 8 * (os.cpu_count() or 1)  # the library's own
    answers = [library.mallopt(name, value) for name, value in keep.items()]
    try:
        yield all(answers)
    finally:
        for name, value in after.items():
            library.mallopt(name, value)
        library.malloc_trim(0)


def _gnu_c_library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
        _ = library.gnu_get_libc_version, library.mallopt, library.malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library; Windows has no CDLL(None)
        return None
    return library
