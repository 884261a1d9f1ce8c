"""`dropserve models`: what a server serves; and orders to load and unload, for administrators."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from dropserve_client.cli.connection import add_connection_options, connect, telling_errors
from dropserve_client.cli.text import table

if TYPE_CHECKING:
    from dropserve_client import ModelInfo, VersionStatus

ADMIN_SERVER = "localhost:8003"
LOAD, UNLOAD, RELOAD, VERSIONS = "load", "unload", "reload", "versions"


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "models",
        help="list the models that a server serves, or load and unload them",
        description="List every version of every model that a server serves. "
        "With an order: tell the server's admin port what to serve.",
    )
    orders = parser.add_argument_group("orders, to the admin port")
    orders.add_argument(
        "order",
        nargs="?",
        choices=(LOAD, UNLOAD, RELOAD, VERSIONS),
        help="load or unload MODEL; reload: look through the repository now; versions: list what is in it",
    )
    orders.add_argument("model", nargs="?", metavar="MODEL", help="whom to load or unload")
    orders.add_argument(
        "--version", default="", metavar="N", help="the version (without it: what the version policy wants)"
    )
    orders.add_argument(
        "--admin-server", default=ADMIN_SERVER, metavar="HOST:PORT", help="the admin port (%(default)s)"
    )
    add_connection_options(parser)
    parser.set_defaults(run=telling_errors(run), extra=None)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    if wrong := _misuse(arguments):
        print(f"dropserve models: {wrong}", file=sys.stderr)
        return 2
    if arguments.order is not None:
        return _give(arguments)
    with connect(arguments) as client:
        models, not_served = client.list_models(), client.list_not_served()
    if models:
        header = (
            "name", "version", "task", "features", "outputs", "drop rates", "provider",
            "intervals", "error bars",
        )  # fmt: skip
        print(table(header, [_line(model) for model in models], right={3}))
    else:
        print(f"{arguments.server} serves no models")
    for status in not_served:
        why = "; the server's log says why" if status.state == "failed" else ""
        print(f"{status.name} {status.version} is not served: {status.state}{why}", file=sys.stderr)
    return 0


def _misuse(arguments: argparse.Namespace) -> str:
    names_model = arguments.order in (LOAD, UNLOAD)
    if names_model and arguments.model is None:
        return f"{arguments.order} whom? dropserve models {arguments.order} MODEL"
    if arguments.model is not None and not names_model:
        return f"{arguments.order} takes no model"
    if arguments.version and not names_model:
        return "--version goes with load and unload"
    return ""


def _give(arguments: argparse.Namespace) -> int:
    from dropserve_client import Administrator

    with connect(argparse.Namespace(**{**vars(arguments), "server": arguments.admin_server})) as client:
        administrator = Administrator(client)
        match arguments.order:
            case "load":
                versions = administrator.load_model(arguments.model, version=arguments.version)
            case "unload":
                versions = administrator.unload_model(arguments.model, version=arguments.version)
            case "reload":
                versions = administrator.reload_repository()
            case _:
                versions = administrator.list_versions()
    print(table(("name", "version", "state", "reason"), [_status(status) for status in versions]))
    return 0


def _status(status: VersionStatus) -> tuple[str, ...]:
    return status.name, _version(status.version, status.is_default), status.state, status.reason


def _line(model: ModelInfo) -> tuple[str, ...]:
    return (
        model.name,
        _version(model.version, model.is_default),
        model.task,
        _features(model),
        _shortened(model.output_names),
        ", ".join(f"{rate:g}" for rate in model.drop_rates) or "none",
        model.provider.removesuffix("ExecutionProvider"),
        "yes" if model.calibrated else "no",
        "yes" if model.monte_carlo_unavailable is None else f"no: {model.monte_carlo_unavailable}",
    )


def _features(model: ModelInfo) -> str:
    """How many features there are, and how many of them hold categories."""
    categorical = sum(column.kind == "category" for column in model.columns)
    return f"{len(model.feature_names)}" + (f" ({categorical} categorical)" if categorical else "")


def _version(version: str, is_default: bool) -> str:
    return version + (" (default)" if is_default else "")


def _shortened(names: tuple[str, ...], at_most: int = 3) -> str:
    if len(names) <= at_most:
        return ", ".join(names)
    return f"{', '.join(names[:at_most])}, ... ({len(names)})"
