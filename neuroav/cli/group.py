"""The ``neuroav`` command group and its literal table of commands, loaded when named."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from neuroav import __version__
from neuroav.cli.common import Group

# In the order of the pipeline; ``neuroav --help`` keeps it.
COMMANDS: dict[str, str] = {
    "demo": "neuroav.cli.demo:demo",
    "data": "neuroav.cli.data:data",
    "train": "neuroav.cli.train:train",
    "evaluate": "neuroav.cli.train:evaluate",
    "lint": "neuroav.cli.lint:lint",
    "export": "neuroav.cli.export:export",
    "import": "neuroav.cli.import_:import_",
    "convert": "neuroav.cli.convert:convert",
    "simulate": "neuroav.cli.simulate:simulate",
    "stream": "neuroav.cli.stream:stream",
    "verify": "neuroav.cli.simulate:verify",
    "report": "neuroav.cli.report:report",
    "calibrate": "neuroav.cli.calibrate:calibrate",
    "sweep": "neuroav.cli.sweep:sweep",
    "robustness": "neuroav.cli.robustness:robustness",
    "ablate": "neuroav.cli.ablate:ablate",
    "profiles": "neuroav.cli.profiles:profiles",
    "doctor": "neuroav.cli.doctor:doctor",
}


class LazyGroup(Group):
    """A group whose commands are named by ``module:attribute`` and imported when asked for."""

    def __init__(self, *args: Any, lazy: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name].partition(":")
        return getattr(import_module(module), attribute)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and leave with 0 done, 1 failure, 2 usage, 130 interrupted."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            # Without standalone mode click returns the code that was given to ``ctx.exit``.
            code = super().main(args, prog_name, complete_var, False, **extra)
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except click.Abort:
            click.echo("neuroav: interrupted", err=True)
            code = 130  # 128 + SIGINT, as a shell reports it
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    example="neuroav demo",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="neuroav", message="%(prog)s %(version)s")
def cli() -> None:
    """Train, compile, simulate and price audio-visual spiking networks for neuromorphic chips.

    Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 expected failure
    (one line says what to try), 2 wrong usage.
    """
