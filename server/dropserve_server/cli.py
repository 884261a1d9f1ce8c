"""``dropserve serve``: the command line of the server.

Only the standard library is imported here: every ``dropserve`` command reads this module, also where the
server's own requirements are not installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin

if TYPE_CHECKING:
    from dropserve_server.settings import Settings

NAME = "serve"
SUMMARY = "serve a repository of models over gRPC"

PRINT_SETTINGS = "--print-settings"

OK, FAILURE, USAGE = 0, 1, 2


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to the command line of ``dropserve``."""
    # The options are the settings, which need pydantic. So nothing is an option to this parser, whatever
    # it starts with; `run` parses them.
    parser = subparsers.add_parser(NAME, help=SUMMARY, add_help=False, prefix_chars="\0")
    parser.add_argument("options", nargs="*")
    parser.set_defaults(run=run, extra="server")


def run(args: argparse.Namespace) -> int:
    """Serve; the exit status, once told to stop."""
    from dropserve_server import signals

    signals.hold_back()  # before what takes its time to be imported

    from dropserve_server import logs
    from dropserve_server.errors import SettingsError
    from dropserve_server.sources import mistyped_variables

    try:
        if PRINT_SETTINGS in args.options:
            return _print_settings(args.options)
        settings = parse(args.options)
    except SettingsError as error:
        print(f"dropserve {NAME}: {error}", file=sys.stderr)
        return USAGE
    log = logs.configure(settings.log_format, settings.log_level)
    logs.catch_uncaught()
    for variable, likeness in mistyped_variables().items():
        log.warning("environment variable ignored", extra={"variable": variable, "did_you_mean": likeness})
    return _serve(settings)


def parse(options: Sequence[str]) -> Settings:
    """The settings that command line, environment and file give.

    Raises
    ------
    SettingsError
        A value is wrong, or the repository is missing.
    SystemExit
        An option is unknown, or help was asked for.
    """
    from dropserve_server.errors import SettingsError

    settings, _, _ = _read(options)
    if not settings.repository.is_dir():
        raise SettingsError(
            f"there is no repository folder {settings.repository}; it should hold MODEL/VERSION/model.onnx"
        )
    return settings


def _read(options: Sequence[str]) -> tuple[Settings, dict[str, Any], str | None]:
    """The settings, and the flags and the file that they were read from."""
    from dropserve_server.sources import read_settings, settings_file

    flags = vars(_parser().parse_args(options))
    flags.pop("print_settings", None)
    config = settings_file(flags.pop("config", None))
    return read_settings(flags, config), flags, config


def _print_settings(options: Sequence[str]) -> int:
    from dropserve_server.effective import effective_settings

    print(effective_settings(*_read(options)), end="")
    return OK


def _serve(settings: Settings) -> int:
    if settings.workers > 1:
        from dropserve_server.workers.supervisor import supervise

        return supervise(settings)

    import asyncio

    from dropserve_models.errors import ModelsError
    from dropserve_server.errors import SettingsError, StartupError
    from dropserve_server.process import leave, loop_factory, prepare

    settings = prepare(settings)

    from dropserve_server.server import Ending, Server  # gRPC, after what it reads when it is imported

    async def life() -> Ending:
        return await Server(settings).run()

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            ending = runner.run(life())
    except SettingsError as error:
        print(f"dropserve {NAME}: {error}", file=sys.stderr)
        return USAGE
    except (StartupError, ModelsError) as error:
        print(f"dropserve {NAME}: {error}", file=sys.stderr)
        return FAILURE
    return leave(ending)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    from dropserve_server.settings import ENVIRONMENT_PREFIX, Settings
    from dropserve_server.sources import flag

    parser = _Parser(
        prog=f"dropserve {NAME}",
        description=f"{SUMMARY[0].upper()}{SUMMARY[1:]}.",
        epilog=f"Every option is also an environment variable ({ENVIRONMENT_PREFIX}GRPC_PORT) and a key of "
        "the --config file (grpc_port = 8001). Options win over the environment, which wins over the file.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE", help="TOML file of settings")
    parser.add_argument(
        PRINT_SETTINGS,
        action="store_true",
        help="print the settings in effect, as TOML that --config reads, and where each came from",
    )
    for name, field in Settings.model_fields.items():
        default = "" if field.is_required() or field.default is None else f" [{field.default}]"
        text = f"{field.description}{default}".replace("%", "%%")
        if field.annotation is bool:
            parser.add_argument(flag(name), action=argparse.BooleanOptionalAction, help=text)
        else:
            choices = "|".join(get_args(field.annotation)) if get_origin(field.annotation) is Literal else ""
            parser.add_argument(flag(name), metavar=choices or name.rpartition("_")[2].upper(), help=text)
    return parser
