"""The `mkwrite` command: one module a command, its docstring the help text.

A command module is light to import; what it needs it imports when it runs.
"""

import sys


def main() -> None:
    """The console script. Says what to install where the `cli` extra is missing."""
    try:
        from .app import run
    except ModuleNotFoundError as missing:
        if missing.name not in {"typer", "rich"}:
            raise
        sys.exit(f"mkwrite: the command line needs {missing.name}: pip install 'mkwrite[cli]'")
    run()
