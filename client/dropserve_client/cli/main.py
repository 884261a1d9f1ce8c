"""The command `dropserve`: finds the subcommands, runs one, and tells failures in one line.

A package adds a subcommand by an entry point of the group "dropserve.commands", a function
``register(subparsers)`` that imports only the standard library, adds its parser with
``subparsers.add_parser(NAME, help=...)``, and sets two defaults on it:

- ``run``: a function of the parsed arguments that returns the exit status;
- ``extra``: the extra of the distribution that it needs, e.g. "train", or None.

Exit status: 0 done; 1 failed; 2 wrong usage or data; 130 interrupted; 141 nobody reads the output.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NoReturn

from dropserve_client.cli.extras import missing_packages

GROUP = "dropserve.commands"
DEBUG = "DROPSERVE_DEBUG"

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a name that its encoding can't write is no failure
    try:
        return _run(_parser().parse_args(argv))
    except SystemExit as exit_:  # argparse: help, version, wrong usage
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _write_no_more()
        return 141


def _run(arguments: argparse.Namespace) -> int:
    command, extra = arguments.command, getattr(arguments, "extra", None)
    try:
        status = int(arguments.run(arguments))
        if sys.stdout is not None:  # it is None where it was closed before we started
            sys.stdout.flush()
        return status
    except BrokenPipeError:
        raise
    except OSError as error:
        # Commands tell what happens to the files they name: no file, it is the output.
        if error.filename is not None or error.errno not in _UNWRITABLE:
            return _bug(command, error)
        _write_no_more()
        _tell(f"dropserve {command}: can't write its output: {error.strerror}")
        return 1
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if extra and not package.startswith("dropserve"):
            _tell(_needs(command, extra))
            return 2
        return _bug(command, error)
    except Exception as error:  # noqa: BLE001  # the last place where it can be told in one line
        return _bug(command, error)


def _write_no_more() -> None:
    """Python flushes stdout once more at exit, which must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bug(command: str, error: Exception) -> int:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    else:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        _tell(f"dropserve {command} failed by a bug: {said} ({DEBUG}=1 shows where)")
    return 1


def _needs(command: str, extra: str) -> str:
    return f"dropserve {command} needs the '{extra}' extra: pip install 'dropserve[{extra}]'"


def _tell(line: str) -> None:
    if sys.stderr is None:  # it was closed before we started
        return
    try:
        print(line, file=sys.stderr)
    except OSError:
        pass  # nobody can be told; the exit status says it all the same


class _Parser(argparse.ArgumentParser):
    """Tells wrong usage in one line, and does not guess at abbreviated options."""

    broken: ImportError | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        # A subcommand that can't be loaded says so when it is used, and the others work.
        if self.broken is not None:
            self.exit(1, f"{self.prog} can't be loaded: {self.broken}\n")
        found, unknown = super().parse_known_args(*args, **kwargs)
        if unknown and self.get_default("run") is not None:  # of a subcommand, whose help tells what there is
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        # Who lacks the extra should hear of that first, not of the options.
        extra = self.get_default("extra")
        if extra and missing_packages(extra):
            self.exit(2, _needs(self.prog.partition(" ")[2], extra) + "\n")
        self.exit(2, f"{self.prog}: {message} ({self.prog} --help explains)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dropserve",
        description="Train models whose predictions come with error bars, serve them, ask them.",
        epilog="dropserve COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"dropserve {metadata.version('dropserve')}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            register = entry.load()
        except ImportError as error:
            subparsers.add_parser(entry.name, help="(can't be loaded)").broken = error
        else:
            register(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
