"""The commands, by name: each takes its parsed arguments, works, and prints what came out."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from equimark.commands.finding import run_app, run_detect, run_fit, run_match
from equimark.commands.labels import run_convert
from equimark.commands.learning import run_demo, run_export, run_pack, run_recipes, run_synthetic, run_train
from equimark.commands.measuring import run_benchmark, run_evaluate, run_info, run_report, run_reproduce, run_tabulate

COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "demo": run_demo,
    "pack": run_pack,
    "train": run_train,
    "recipes": run_recipes,
    "detect": run_detect,
    "match": run_match,
    "fit": run_fit,
    "convert": run_convert,
    "evaluate": run_evaluate,
    "tabulate": run_tabulate,
    "reproduce": run_reproduce,
    "report": run_report,
    "app": run_app,
    "info": run_info,
    "export": run_export,
    "benchmark": run_benchmark,
    "synthetic": run_synthetic,
}
