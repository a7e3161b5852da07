"""The command line: parse, run, and put failures into one line; exit code 1, or 2 for wrong usage."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence

import torch

from .app import AppError
from .arguments import UsageError, make_parser
from .benchmarks import BenchmarkError
from .chains import ChainError
from .checkpoint import CheckpointError
from .commands import COMMANDS
from .config import ConfigError, config_keys, nearest
from .embedding import ModelError
from .export import ExportError
from .images import ImageError
from .landmarks import LandmarkError
from .metrics import MetricError
from .processes import prints
from .records import RecordError
from .results import ResultsError
from .timing import TimingError
from .training import TrainingError

Failure = (
    *(AppError, BenchmarkError, CheckpointError, ImageError, LandmarkError, MetricError, ModelError, RecordError),
    *(ExportError, ResultsError, TimingError, TrainingError, OSError),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    torch.set_flush_denormal(True)  # must precede the first parallel operation of the process
    try:
        arguments = _parse(sys.argv[1:] if argv is None else argv)
        COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the output has seen enough, as in `equimark recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (UsageError, ConfigError, ChainError) as error:
        return _complain(error, 2)
    except Failure as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 1)
    return 0


def _complain(error: object, code: int) -> int:
    if prints():
        print(f"equimark: {' '.join(str(error).split())}", file=sys.stderr)
    return code


# ---- words -> arguments --------------------------------------------------------------------------------------


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command, with the ``words`` themselves, and of ``train`` with ``settings`` of its run.

    Raises:
        UsageError: if the words name no command, or not what it takes.
        ConfigError: if settings of a run have no values.
    """
    parser, commands = make_parser()
    name = words[0] if words else ""
    if not words:
        raise UsageError("no command given, such as demo, train or detect", parser.prog)
    if not name.startswith("-") and name not in commands:
        raise UsageError(f"no command {name!r}{nearest(name, commands)}", parser.prog)
    keys = list(config_keys()) if name == "train" else []
    try:
        arguments, rest = parser.parse_known_args(words)
    except UsageError:
        if name in commands:  # what is missing may be there, but mistyped
            _refuse(_options(words[1:]), commands[name], keys)
        raise
    arguments.words = words
    _refuse(_options(rest) if keys else rest, commands[name], keys)
    if keys:
        arguments.settings = _settings(rest)
    return arguments


_OPTION = re.compile(r"--?[a-zA-Z][^\s=]*(=.*)?", re.DOTALL)


def _options(words: Sequence[str]) -> list[str]:
    return [word for word in words if _OPTION.fullmatch(word)]


def _refuse(words: Sequence[str], command: argparse.ArgumentParser, keys: Sequence[str] = ()) -> None:
    """Refuse the first of ``words`` that is no option of the command, nor one of ``keys``."""
    options = [option for action in command._actions for option in action.option_strings]
    for word in words:
        option = word.partition("=")[0]
        if option not in options and option[2:].replace("-", "_") not in keys:
            known = [*options, *(f"--{key}" for key in keys)]
            raise UsageError(f"unknown argument {option!r}{nearest(option, known)}", command.prog)


def _settings(rest: Sequence[str]) -> dict[str, str]:
    """Configuration keys given as ``--key value`` or ``--key=value``."""
    settings: dict[str, str] = {}
    words = list(rest)
    while words:
        option, joined, value = words.pop(0).partition("=")
        if not option.startswith("--"):
            raise ConfigError(f"unexpected argument {option!r}; see equimark train --help")
        if not joined:
            if not words or words[0].startswith("--"):
                raise ConfigError(f"{option} needs a value")
            value = words.pop(0)
        settings[option[2:].replace("-", "_")] = value
    return settings
