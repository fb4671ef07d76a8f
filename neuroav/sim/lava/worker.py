"""The process a run lives in: ``python -m neuroav.sim.lava.worker FOLDER``.

It is fresh, because Lava sets the start method of multiprocessing and forks, which other threads
(torch's, for one) do not survive; and it is alone in its process group, so that the caller can end
it with all its children.
"""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from pathlib import Path

import numpy as np

from neuroav.errors import NeuroavError
from neuroav.sim.lava import shim
from neuroav.sim.lava.jobs import Folder


class _Orphaned(Exception):
    """The caller has ended: so must the run."""


def main(path: str) -> int:
    """Run all jobs in the folder; return 0, or 1 after leaving word of the failure there."""
    folder = Folder(Path(path))
    settings = folder.settings()
    beat = np.load(folder.beat, mmap_mode="r+")

    def alive() -> None:
        beat[0] += 1
        if os.getppid() != settings.parent:
            raise _Orphaned

    index = 0
    try:
        shim.prepare()
        # only now: these import Lava
        from neuroav.sim.lava.engine import run_job
        from neuroav.sim.lava.guard import dump_stacks_on_request

        dump_stacks_on_request(folder.stacks)
        for index in range(settings.jobs):
            alive()
            run_job(folder.job(index), settings, folder.stacks, alive)
    except _Orphaned:
        shutil.rmtree(folder.path, ignore_errors=True)  # nobody else is left to do it
        return 1
    except NeuroavError as error:
        place = f"network {index}: " if settings.jobs > 1 else ""
        folder.fail(type(error).__name__, f"{place}{error}")
        return 1
    except Exception:  # whatever Lava raises: the parent shows it, with its traceback
        folder.fail("ExecutorError", f"the Lava worker failed:\n{traceback.format_exc()}")
        return 1
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    # a Lava start-up that failed leaves threads on which a normal exit would wait for ever
    os._exit(status)
