"""The commands of ``smidgen``, and the parser that knows them.

A command is a module with ``SUMMARY``, ``DESCRIPTION``, ``EXAMPLES``, ``add_arguments(parser)`` and
``execute(arguments)``. ``COMMANDS`` names each, nothing is discovered.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

import smidgen.runtime
from smidgen.cli import (
    bench_command,
    debug_command,
    export_command,
    gate_command,
    inspect_command,
    predict_command,
    preflight_command,
    run_command,
    sign_command,
    train_command,
)
from smidgen.cli.errors import UsageError


class Command(Protocol):
    """What a command's module offers."""

    SUMMARY: str
    DESCRIPTION: str
    EXAMPLES: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments. Light: this is what ``--help`` waits for."""

    def execute(self, arguments: argparse.Namespace) -> int:
        """Do it; the exit status."""


COMMANDS: dict[str, Command] = {
    "preflight": cast(Command, preflight_command),
    "run": cast(Command, run_command),
    "train": cast(Command, train_command),
    "export": cast(Command, export_command),
    "gate": cast(Command, gate_command),
    "bench": cast(Command, bench_command),
    "predict": cast(Command, predict_command),
    "inspect": cast(Command, inspect_command),
    "debug": cast(Command, debug_command),
    "sign": cast(Command, sign_command),
}

_DESCRIPTION = "A folder of images in; a tiny, verified image classifier out."
_SEE_HELP = "see `smidgen --help`"
_TOP_FLAGS = ("-h", "--help", "--version")
_EPILOG = """\
start here:
  smidgen run photos/       with photos/cat/1.jpg, photos/dog/2.jpg, ...
  smidgen COMMAND --help    every setting of a command"""


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of printing a usage text and leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `{self.prog} --help`")


def parser() -> Parser:
    """The whole command line."""
    top = Parser(
        prog="smidgen",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument(
        "--version", action="version", version=f"smidgen {smidgen.runtime.__version__}"
    )
    subparsers = top.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", required=True, parser_class=Parser
    )
    for name, command in COMMANDS.items():
        sub = subparsers.add_parser(
            name,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
            epilog=f"examples:\n{command.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(sub)
        sub.usage = _usage(sub, name)
    return top


def _usage(sub: argparse.ArgumentParser, name: str) -> str:
    """One line: the settings of the recipe are listed below it anyway."""
    places = [
        f"[{action.metavar}]" if action.nargs == "?" else f"{action.metavar}{_more(action)}"
        for action in sub._get_positional_actions()
    ]
    return f"smidgen {name} {' '.join(places)} [flags]"


def _more(action: argparse.Action) -> str:
    return "..." if action.nargs == "+" else ""


def options_of(command: str) -> list[str]:
    """Every flag of a command, in the order of its help."""
    probe = Parser(allow_abbrev=False)
    COMMANDS[command].add_arguments(probe)
    return [option for action in probe._actions for option in action.option_strings]


def dispatch(argv: Sequence[str]) -> int:
    """Parse and execute; the exit status. Raises UsageError, or what the command raises."""
    _check_spelling(argv)
    arguments, extra = parser().parse_known_args(argv)
    if extra:
        raise UsageError(f"unexpected argument {extra[0]!r}; see `smidgen {argv[0]} --help`")
    return COMMANDS[arguments.command].execute(arguments)


def _check_spelling(argv: Sequence[str]) -> None:
    """Name the nearest command or flag before argparse complains of what follows from a typo."""
    if not argv:
        return
    command, *rest = argv
    if command.startswith("-"):
        if command not in _TOP_FLAGS:
            raise UsageError(f"unknown flag {command};{_near(command, _TOP_FLAGS)} {_SEE_HELP}")
        return
    if command not in COMMANDS:
        raise UsageError(
            f"unknown command {command!r};{_near(command, list(COMMANDS))} commands: "
            f"{', '.join(COMMANDS)}"
        )
    known = options_of(command)
    before_separator = rest[: rest.index("--")] if "--" in rest else rest
    for word in before_separator:
        name = word.partition("=")[0]
        if name.startswith("--") and name not in known:
            raise UsageError(
                f"unknown flag {name} of `smidgen {command}`;{_near(name, known)} "
                f"see `smidgen {command} --help`"
            )


def _near(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" did you mean {close[0]}?" if close else ""
