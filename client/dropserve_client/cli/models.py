"""`dropserve models`: what a server serves."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dropserve_client.cli.connection import add_connection_options, connect, telling_errors
from dropserve_client.cli.text import table

if TYPE_CHECKING:
    from dropserve_client import ModelInfo


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "models",
        help="list the models that a server serves",
        description="List every version of every model that a server serves.",
    )
    add_connection_options(parser)
    parser.set_defaults(run=telling_errors(run), extra=None)


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    with connect(arguments) as client:
        models = client.list_models()
    if not models:
        print(f"{arguments.server} serves no models")
        return 0
    header = ("name", "version", "task", "features", "outputs", "drop rates", "provider", "error bars")
    print(table(header, [_line(model) for model in models], right={3}))
    return 0


def _line(model: ModelInfo) -> tuple[str, ...]:
    return (
        model.name,
        model.version + (" (default)" if model.is_default else ""),
        model.task,
        str(len(model.feature_names)),
        _shortened(model.output_names),
        ", ".join(f"{rate:g}" for rate in model.drop_rates) or "none",
        model.provider.removesuffix("ExecutionProvider"),
        "yes" if model.monte_carlo_unavailable is None else f"no: {model.monte_carlo_unavailable}",
    )


def _shortened(names: tuple[str, ...], at_most: int = 3) -> str:
    if len(names) <= at_most:
        return ", ".join(names)
    return f"{', '.join(names[:at_most])}, ... ({len(names)})"
