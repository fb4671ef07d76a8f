"""Run the command line: ``python -m neuroav`` and the ``neuroav`` script."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run ``neuroav`` with the process's arguments; leave with its exit code."""
    from neuroav.cli.group import cli

    cli.main(prog_name="neuroav")
    raise AssertionError("the command group always leaves through sys.exit")


if __name__ == "__main__":
    main()
