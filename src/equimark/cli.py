"""The commands: parse, call, print. Every failure is one line on standard error and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from jsonargparse import SUPPRESS, ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from . import checkpoint, evaluation, landmarks, report, run, tasks
from .checkpoint import CheckpointError
from .config import ConfigError, RunConfig, config_keys, load_recipe, make_config, nearest, recipe_names
from .demo import run_demo
from .geometry import Frame
from .images import ImageError, pack
from .landmarks import LandmarkError
from .model import Head, LandmarkModel, ModelError
from .synthetic import portraits, write
from .training import TrainingError

FAILURES = (ImageError, LandmarkError, ConfigError, CheckpointError, TrainingError, ModelError, tasks.TaskError)
