"""``dropserve token``: make a token.

Only the standard library is imported here; see `dropserve_server.cli`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

NAME = "token"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to the command line of ``dropserve``."""
    parser = subparsers.add_parser(
        NAME,
        help="make a bearer token for a server that asks for them",
        description="Make a token, print it, and put its hash into a server's token file.",
    )
    parser.add_argument("name", metavar="NAME", help="who gets it; the server's log says so")
    parser.add_argument(
        "--role", choices=("predict", "admin"), default="predict", help="what it allows (%(default)s)"
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        required=True,
        metavar="FILE",
        help="the server's token file; made if need be",
    )
    parser.set_defaults(run=run, extra="server")


def run(args: argparse.Namespace) -> int:
    """Make the token; the exit status."""
    from dropserve_server.errors import SettingsError
    from dropserve_server.tokens import add_token

    try:
        token = add_token(args.token_file, args.name, args.role)
    except SettingsError as error:
        print(f"dropserve {NAME}: {error}", file=sys.stderr)
        return 2
    print(token)
    return 0
