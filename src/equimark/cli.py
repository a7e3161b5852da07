"""The command line: parse, run, and put failures into one line; exit code 1, or 2 for wrong usage."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import torch

from .app import AppError
from .arguments import make_parser
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
    parser, commands = make_parser()
    words = sys.argv[1:] if argv is None else argv
    arguments, rest = parser.parse_known_args(words)
    arguments.words = words
    command = commands[arguments.command]
    try:
        if arguments.command == "train":
            arguments.settings = _settings(rest)
        else:
            _refuse(rest, command)
        COMMANDS[arguments.command](arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the output has seen enough, as in `equimark recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ConfigError, ChainError) as error:
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


def _refuse(rest: Sequence[str], command: argparse.ArgumentParser) -> None:
    if rest:
        options = [option for action in command._actions for option in action.option_strings]
        raise ConfigError(f"unknown argument {rest[0]!r}{nearest(rest[0], options)}; see {command.prog} --help")


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
                known = ["overwrite", "resume", "quiet", *config_keys()]
                raise ConfigError(f"{option} needs a value{nearest(option[2:], known)}")
            value = words.pop(0)
        settings[option[2:].replace("-", "_")] = value
    return settings
