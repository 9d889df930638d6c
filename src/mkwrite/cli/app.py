"""The command line as a whole: which commands there are, and how an error reads."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"mkwrite {version('mkwrite')}")
        raise typer.Exit


@app.callback()
def mkwrite(
    shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Know, ask and commit what a program stores to memory."""


def run() -> None:
    """Run the command line; an error that a user can cause is one line and exit status 1."""
    try:
        app()
    except (OSError, ValueError) as error:
        sys.exit(f"mkwrite: {error}")
