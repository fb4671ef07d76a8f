"""Lava's own tests of the processes we use, in this environment, with our start-up shim.

    python benchmarks/lava_own_tests.py [--source FOLDER] [--channels] [--only NAME] [--limit S]

FOLDER holds ``tests/lava`` as in Lava's source tree; by default the copy that the lava-nc wheel
installs beside the package. Every module runs in a process of its own, with a time limit, because a
test whose Lava process fails waits for ever; the tests after it run in another. With --channels
Lava's runtime uses the channels of neuroav/sim/lava/channels.py, and its tests of the runtime run
as well (they need psutil). Prints a table of passed, failed and skipped tests by module, then every
failure with the last line of its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import time
import unittest
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

PROCESSES = (  # what build.py makes networks of, and how we feed and read them
    "proc/io/test_source_sink",
    "proc/lif/test_process",
    "proc/lif/test_models",
    "proc/dense/test_process",
    "proc/dense/test_models",
    "proc/sparse/test_process",
    "proc/sparse/test_models",
    "proc/conv/test_process",
    "proc/conv/test_models",
    "proc/conv/test_utils",
    "proc/graded/test_graded",
    "proc/prodneuron/test_prod_neuron",
)
RUNTIME = (  # what our channels and our guard replace a part of
    "magma/compiler/test_compiler",
    "magma/core/process/ports/test_virtual_ports_in_process",
    "magma/runtime/test_exception_handling",
    "magma/runtime/test_get_set_var",
    "magma/runtime/test_io_ports",
    "magma/runtime/test_loihi_protocol",
    "magma/runtime/test_pause_requested_from_model",
    "magma/runtime/test_ref_var_ports",
    "magma/runtime/test_run_continuously_and_pause",
    "magma/runtime/test_runtime",
)


class Lines(unittest.TestResult):
    """Prints one JSON line per test, so that what ran before a hang is known."""

    def tell(self, test: unittest.TestCase, outcome: str, why: str = "") -> None:
        print("RESULT " + json.dumps([test.id(), outcome, why]), flush=True)

    def startTest(self, test):  # noqa: N802
        super().startTest(test)
        self.tell(test, "started")

    def addSuccess(self, test):  # noqa: N802
        self.tell(test, "passed")

    def addSkip(self, test, reason):  # noqa: N802
        self.tell(test, "skipped", reason)

    def addExpectedFailure(self, test, err):  # noqa: N802
        self.tell(test, "passed")

    def addFailure(self, test, err):  # noqa: N802
        self.tell(test, "failed", f"{err[0].__name__}: {err[1]}")

    addError = addFailure  # noqa: N815

    def addSubTest(self, test, subtest, err):  # noqa: N802
        if err is not None:
            self.addFailure(test, err)


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for entry in suite:
        if isinstance(entry, unittest.TestSuite):
            yield from tests_of(entry)
        else:
            yield entry


def run_module(source: Path, module: str, channels: bool, done: Sequence[str]) -> None:
    """Run one module's tests in this process; ends it at once, whatever Lava left running."""
    from neuroav.sim.lava import shim

    shim.prepare()
    if channels:
        use_our_channels()
    sys.path.insert(0, str(source))
    name = "tests.lava." + module.replace("/", ".")
    loaded = unittest.defaultTestLoader.loadTestsFromName(name)
    unittest.TestSuite(t for t in tests_of(loaded) if t.id() not in done).run(Lines())
    sys.stdout.flush()
    os._exit(0)


def use_our_channels() -> None:
    """Have Lava's runtime, unguarded, build and wait on our channels."""
    from lava.magma.runtime.message_infrastructure.factory import MessageInfrastructureFactory

    from neuroav.sim.lava.channels import DirectMultiProcessing, wait_directly

    wait_directly()
    names = [f"actor {i}" for i in range(10_000)]
    MessageInfrastructureFactory.create = staticmethod(lambda *_: DirectMultiProcessing(names))


def results(source: Path, module: str, channels: bool, limit_s: float) -> dict[str, list[str]]:
    """Return outcome and reason by test; a test that was still running at the limit has failed."""
    found: dict[str, list[str]] = {}
    while True:
        part, end = run_once(source, module, channels, limit_s, list(found))
        stuck = [test for test, (outcome, _) in part.items() if outcome == "started"]
        found |= part | {test: ["failed", end] for test in stuck}
        if not found:
            return {module: ["failed", end]}
        if not stuck:
            return found


def run_once(
    source: Path, module: str, channels: bool, limit_s: float, done: list[str]
) -> tuple[dict[str, list[str]], str]:
    """Run the tests that are not ``done``; return outcome and reason by test, and how it ended."""
    command = [sys.executable, __file__, "--source", str(source), "--module", module]
    with subprocess.Popen(
        [*command, *["--channels"] * channels, "--done", *done],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=source,
    ) as process:
        try:
            output = process.communicate(timeout=limit_s)[0]
            end = f"the process ended with exit code {process.returncode}"
        except subprocess.TimeoutExpired:
            end = f"still running after {limit_s:g} s"
            for number in (signal.SIGTERM, signal.SIGKILL):  # between, shared memory is given back
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                    time.sleep(2)
            output = process.communicate()[0]
    lines = [json.loads(x[7:]) for x in output.splitlines() if x.startswith("RESULT ")]
    if not lines:
        end = (output.strip().splitlines() or [end])[-1]
    return {test: [outcome, why] for test, outcome, why in lines}, end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--channels", action="store_true")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds per module")
    parser.add_argument("--only", default="", help="modules with this in their name")
    parser.add_argument("--module", help=argparse.SUPPRESS)
    parser.add_argument("--done", nargs="*", default=[], help=argparse.SUPPRESS)
    args = parser.parse_args()
    spec = importlib.util.find_spec("lava")
    source = args.source or Path(next(iter(spec.submodule_search_locations))).parent
    if args.module:
        run_module(source, args.module, args.channels, args.done)
    wanted = [m for m in PROCESSES + (RUNTIME if args.channels else ()) if args.only in m]
    modules = [m for m in wanted if (source / "tests" / "lava" / f"{m}.py").exists()]
    print(f"Python {platform.python_version()}, NumPy {np.__version__}")
    print("| module | passed | failed | skipped |\n|---|---|---|---|")
    failures, total = [], Counter()
    for module in modules:
        found = results(source, module, args.channels, args.limit)
        counts = Counter(outcome for outcome, _ in found.values())
        total += counts
        failures += [(t, why) for t, (outcome, why) in found.items() if outcome == "failed"]
        print(f"| {module} | {counts['passed']} | {counts['failed']} | {counts['skipped']} |",
              flush=True)  # fmt: skip
    print(f"| all | {total['passed']} | {total['failed']} | {total['skipped']} |")
    for test, why in failures:
        print(f"- {test}: {why}")
    for module in sorted(set(wanted) - set(modules)):
        print(f"- not there: {module}")


if __name__ == "__main__":
    main()
