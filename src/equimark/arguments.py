"""What can be asked for on the command line: commands, options, help with examples."""

from __future__ import annotations

import argparse
from pathlib import Path

from .config import config_keys, make_config, to_mapping


def make_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and the parser of each command by its name."""
    parser = argparse.ArgumentParser(
        prog="equimark", description="Learns the landmarks of an object category from unlabelled images."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made: dict[str, argparse.ArgumentParser] = {}

    def add(name: str, what: str, example: str) -> argparse.ArgumentParser:
        made[name] = commands.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog=f"example:\n  equimark {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        return made[name]

    _demo_arguments(add("demo", "draw people, learn their landmarks, measure and show", "demo --out runs/demo"))
    _pack_arguments(add("pack", "bring images to one size, for fast training", "pack photos --out packs/photos"))
    _train_arguments(add("train", "learn from unlabelled images", "train photos --out runs/photos --steps 5000"))
    add("recipes", "list the papers' configurations", "recipes")
    _detect_arguments(add("detect", "find landmarks on every image", "detect runs/photos photos --out landmarks.csv"))
    _match_arguments(
        add(
            "match",
            "find the points of one image on others",
            'match runs/photos photos/a.jpg --points "40,52 71,50" --targets photos --out matches.csv --plot them.png',
        )
    )
    _fit_arguments(
        add("fit", "learn named landmarks from few labels", "fit runs/photos --landmarks labels.csv --out head")
    )
    evaluate = add(
        "evaluate",
        "measure a run by a protocol of the papers",
        "evaluate matching runs/faces --data faces/landmarks.csv --out results.json",
    )
    _evaluate_arguments(evaluate)
    shown = add("report", "write report.html of a run", "report runs/photos")
    shown.add_argument("run", type=Path)
    shown.add_argument("--images", type=Path, help="images to show instead of the training's")
    add("info", "say what a run is", "info runs/photos").add_argument("run", type=Path)
    _synthetic_arguments(
        add("synthetic", "draw images with known landmarks", "synthetic portraits --out drawn --count 500")
    )
    return parser, made


def _common(parser: argparse.ArgumentParser, *, seed: bool = False, frame: bool = False) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    if seed:
        parser.add_argument("--seed", type=int, default=0)
    if frame:
        what = "part of each image that the model sees: centre, letterbox, stretch or x0,y0,x1,y1 in fractions"
        parser.add_argument("--frame", help=what)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    _common(parser, seed=True)


def _pack_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=100, help="side in pixels; 136 for the hourglass recipes")
    parser.add_argument("--frame", default="centre", help="centre, letterbox, stretch or x0,y0,x1,y1 in fractions")
    parser.add_argument("--pad", type=int, default=0, help="pixels of surroundings on each side")
    parser.add_argument("--fill", choices=("edge", "black", "white"), default="edge", help="beyond the image")
    parser.add_argument("--overwrite", action="store_true", help="replace a pack")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


USUAL_KEYS = ("steps", "batch_size", "seed")


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, help="a folder, a .zip, a list of paths or a pack")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--recipe", help="a name (see equimark recipes) or a .yaml file")
    parser.add_argument("--method", help="dve, dense or sparse, instead of a recipe")
    for key in USUAL_KEYS:
        parser.add_argument(f"--{key.replace('_', '-')}", metavar="N", help="over the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on exactly where the run stopped")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in --out")
    parser.add_argument("--from", dest="start_from", metavar="RUN", help="start from its weights (fine-tuning)")
    parser.add_argument("--landmarks", type=Path, help="labels of a supervised run; of a file with splits, train")
    parser.add_argument("--parts", type=Path, help="folder of label images of a segmentation run")
    parser.add_argument("--tracker", help="also log to a tracker, for example tensorboard")
    _common(parser, frame=True)
    defaults = to_mapping(make_config({}))
    keys = "\n".join(f"  --{key} {_value(defaults, key)}" for key in config_keys())
    parser.epilog = f"{parser.epilog}\n\nconfiguration keys, which go over the recipe's, with their defaults:\n{keys}"


def _value(mapping: object, dotted: str) -> object:
    for part in dotted.split("."):
        assert isinstance(mapping, dict)
        mapping = mapping[part]
    return mapping


def _detect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="landmark file to write")
    parser.add_argument("--head", type=Path, help="a fitted head (see equimark fit)")
    _common(parser, frame=True)


def _match_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path)
    parser.add_argument("source", type=Path, help="an image")
    parser.add_argument("--points", required=True, help='"x,y x,y ..." in its pixels, or a landmark file')
    parser.add_argument("--targets", type=Path, required=True, help="images to search")
    parser.add_argument("--out", type=Path, required=True, help="landmark file to write")
    parser.add_argument("--plot", type=Path, help="picture (PNG) to write")
    _common(parser, frame=True)


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path)
    parser.add_argument("--landmarks", type=Path, required=True, help="labels; of a file with splits, train")
    parser.add_argument("--images", type=Path, help="where the images are; default: beside the labels")
    parser.add_argument("--out", type=Path, required=True, help="folder of the head")
    parser.add_argument("--labels", type=int, help="use only that many labelled images, drawn by --seed")
    parser.add_argument("--plot", type=Path, help="PNG to write: which landmarks of a sparse run contribute to which")
    _common(parser, seed=True, frame=True)


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("protocol", choices=("matching",))
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="a landmark file")
    parser.add_argument("--root", type=Path, help="where its images are; default: beside it")
    parser.add_argument("--split", help="of the landmark file; default: test, if it has one")
    parser.add_argument("--variant", choices=("cells", "upsampled"), default="cells", help="as released, or as newer")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    what = "centre, letterbox, stretch, x0,y0,x1,y1, or landmarks: the 300-W frame around the annotated points"
    parser.add_argument("--frame", help=what)


def _synthetic_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("portraits", "arm"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", type=Path, help="folder to make for the label images of portraits")
    parser.add_argument("--speed", type=float, default=1.0, help="of the arm: how many frames further each frame is")
