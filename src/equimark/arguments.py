"""What can be asked for on the command line: commands, options, help with examples."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn, get_args

from .config import config_keys, make_config, to_mapping
from .directions import Direction
from .formats import FORMATS
from .shards import is_url
from .timing import STAGES

_RUN = "folder of a trained run"
_IMAGES = "a folder, a .zip, a list of paths, a video or a pack"
_PLACES = f"{_IMAGES}, here or, in shards, at a URL"
_SEED = "of everything that is drawn at random"


class UsageError(ValueError):
    """Words that a command does not take; the message says which, and where to see what it takes.

    Args:
        fault: what is wrong.
        command: whose help says what is right, as ``equimark fit``.
    """

    def __init__(self, fault: str, command: str) -> None:
        super().__init__(f"{fault}; {command} --help shows what there is")


class _Parser(argparse.ArgumentParser):
    """One line about what is wrong, without all that would be right before it."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.prog)


def make_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser, and the parser of each command by its name; words that they do not take are a :class:`UsageError`."""
    parser = _Parser(prog="equimark", description="Learns the landmarks of an object category from unlabelled images.")
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
    listed = add("recipes", "list the papers' configurations, or show one", "recipes sparse-10")
    listed.add_argument("name", nargs="?", metavar="NAME", help="show it in full, as a file for train --recipe")
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
    _convert_arguments(
        add("convert", "bring landmarks to another file format", "convert labels.tps labels.csv --images photos")
    )
    evaluate = add(
        "evaluate",
        "measure a run by a protocol of the papers",
        "evaluate matching runs/faces --data faces/landmarks.csv --out results.json",
    )
    _evaluate_arguments(evaluate)
    what = "make a table of what evaluate has written"
    _tabulate_arguments(add("tabulate", what, "tabulate dense.json dve.json --metric error_iod_percent --out table.md"))
    _reproduce_arguments(
        add("reproduce", "make a table or figure of the papers", "reproduce 2019-table1 --root /data --out runs/papers")
    )
    shown = add("report", "write report.html of a run", "report runs/photos")
    shown.add_argument("run", type=Path)
    shown.add_argument("--images", type=_place, help="images to show instead of the training's")
    _app_arguments(add("app", "explore, label, review and export in a browser", "app runs/photos photos"))
    add("info", "say what a run is", "info runs/photos").add_argument("run", type=Path)
    what = "write a run for other programs: an ONNX file, or a folder for the Hugging Face Hub"
    _export_arguments(add("export", what, "export runs/photos --out model.onnx"))
    what = "time training and inference, beside the formulation written out as released"
    _benchmark_arguments(add("benchmark", what, "benchmark --out b.json --against earlier.json"))
    _synthetic_arguments(
        add("synthetic", "draw images with known landmarks", "synthetic portraits --out drawn --count 500")
    )
    return parser, made


def _common(parser: argparse.ArgumentParser, *, seed: bool = False, frame: bool = False) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    if seed:
        parser.add_argument("--seed", type=int, default=0, help=_SEED)
    if frame:
        what = "part of each image that the model sees: centre, letterbox, stretch or x0,y0,x1,y1 in fractions"
        parser.add_argument("--frame", help=what)


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    _common(parser, seed=True)


def _pack_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, help=_IMAGES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=100, help="side in pixels; 136 for the hourglass recipes")
    parser.add_argument("--frame", default="centre", help="centre, letterbox, stretch or x0,y0,x1,y1 in fractions")
    parser.add_argument("--pad", type=int, default=0, help="pixels of surroundings on each side")
    parser.add_argument("--fill", choices=("edge", "black", "white"), default="edge", help="beyond the image")
    parser.add_argument("--overwrite", action="store_true", help="replace a pack")
    what = "write files of N images (default: of 16 MB); given again, goes on, and adds images that are new"
    parser.add_argument("--shards", type=int, nargs="?", const=0, metavar="N", help=what)
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


USUAL_KEYS = ("steps", "batch_size", "seed")


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=_place, help=_PLACES)
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--recipe", help="a name (see equimark recipes) or a .yaml file; default: joint-smallnet-64")
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


def _place(text: str) -> str | Path:
    return text if is_url(text) else Path(text)


def _value(mapping: object, dotted: str) -> object:
    for part in dotted.split("."):
        assert isinstance(mapping, dict)
        mapping = mapping[part]
    return mapping


def _detect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help=_RUN)
    parser.add_argument("images", type=_place, help=_PLACES)
    parser.add_argument("--out", type=Path, required=True, help="landmark file to write")
    parser.add_argument("--head", type=Path, help="a fitted head (see equimark fit); with --discover, where to keep it")
    parser.add_argument("--discover", type=int, metavar="K", help="find K landmarks without labels first")
    what = "of the landmarks of --discover, or new ones for those of --head, which keeps them"
    parser.add_argument("--names", metavar="A,B", help=what)
    _part_arguments(parser)
    what = (
        "leave landmarks blank whose confidence is lower (0 to 1); default: what a head has learned from labels that "
    )
    what += "say not visible, else 0"
    parser.add_argument("--min-confidence", type=float, metavar="C", help=what)
    _track_arguments(parser)
    _common(parser, seed=True, frame=True)


def _track_arguments(parser: argparse.ArgumentParser) -> None:
    over_time = parser.add_argument_group("videos and folders of frames")
    what = "CSV to write: video, frame, seconds, landmark, x, y, confidence, speed (pixels per second)"
    over_time.add_argument("--tracks", type=Path, metavar="FILE", help=what)
    what = "video to write (.mp4, .mov, .mkv): the frames with the points drawn on them"
    over_time.add_argument("--overlay", type=Path, metavar="FILE", help=what)
    what = "frames per second at which they were taken; default: the time stamps of a video"
    over_time.add_argument("--fps", type=float, metavar="F", help=what)
    what = "smooth the points over N frames on each side, weighted by confidence; default: not at all"
    over_time.add_argument("--smooth", type=int, metavar="N", help=what)


def _part_arguments(parser: argparse.ArgumentParser) -> None:
    what = "for very many images: --out is a folder of Parquet files of N images each; give the command again to go on"
    parser.add_argument("--part-size", type=int, metavar="N", help=what)


def _match_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help=_RUN)
    parser.add_argument("source", type=Path, help="an image")
    parser.add_argument("--points", required=True, help='"x,y x,y ..." in its pixels, or a landmark file')
    parser.add_argument("--targets", type=_place, required=True, help=f"images to search: {_PLACES}")
    parser.add_argument("--out", type=Path, required=True, help="landmark file to write")
    parser.add_argument("--plot", type=Path, help="picture (PNG) to write")
    _part_arguments(parser)
    _common(parser, frame=True)


_SYMMETRIC = "landmarks that change places in a mirror, as 'left eye=right eye, ...', or auto: by their names or shape"
_DIRECTION = "in which things lie in the images: upright (all alike), any, or auto (any, if the labels show it)"


def _fit_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help=_RUN)
    what = "the labels: a landmark file (.csv, .tps, ...); of one with splits, those of train are used"
    parser.add_argument("--landmarks", type=Path, required=True, metavar="FILE", help=what)
    what = "folder of the labelled images; default: that of the labels. Those that are missing are left out"
    parser.add_argument("--images", type=Path, metavar="FOLDER", help=what)
    what = "folder to write the head to: what was learned of the named landmarks, for detect --head"
    parser.add_argument("--out", type=Path, required=True, metavar="HEAD", help=what)
    parser.add_argument("--labels", type=int, metavar="N", help="use only N labelled images, drawn by --seed")
    parser.add_argument("--symmetric", metavar="PAIRS", help=_SYMMETRIC)
    parser.add_argument("--direction", choices=get_args(Direction), default="auto", help=_DIRECTION)
    parser.add_argument("--suggest", type=int, metavar="N", help="name the N images whose labels would help most")
    parser.add_argument("--plot", type=Path, help="PNG to write: which landmarks of a sparse run contribute to which")
    _common(parser, seed=True, frame=True)


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    what = "landmark file, or a folder of .pts files or Parquet parts"
    parser.add_argument("file", type=Path, metavar="IN", help=what)
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write; of .pts the folder")
    what = "format of {}, where its ending{} does not say it"
    parser.add_argument("--from", dest="read_as", choices=FORMATS, help=what.format("IN", " or content"))
    parser.add_argument("--to", dest="write_as", choices=FORMATS, help=what.format("OUT", ""))
    parser.add_argument("--images", type=Path, help="where the images are; needed by formats that depend on their size")
    what = "units of length per pixel: a number for all images, or a .tps file with the SCALE= of each"
    parser.add_argument("--scale", metavar="S", help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    lines = (f"  {name:<14} {', '.join(each.endings):<11} {each.about}" for name, each in FORMATS.items())
    parser.epilog = f"{parser.epilog}\n\nformats, of which the first with an ending is written:\n" + "\n".join(lines)


def _evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("protocol", choices=("matching", "landmarks", "segmentation"))
    parser.add_argument("run", type=Path, help=_RUN)
    parser.add_argument("--data", required=True, help="a published set by name, or a landmark file; or images, --parts")
    parser.add_argument("--root", type=Path, help="folder of the set, or of the file's images; default: beside it")
    parser.add_argument("--split", help="to test on; default: test, if there is one")
    what = "centre, letterbox, stretch, x0,y0,x1,y1, or landmarks: the 300-W frame around the annotated points"
    parser.add_argument("--frame", help=what)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    _common(parser, seed=True)
    matching = parser.add_argument_group("matching")
    matching.add_argument("--variant", choices=("cells", "upsampled"), default="cells", help="as released, or as newer")
    matching.add_argument("--pairs", type=int, help="use only that many pairs of images, drawn by --seed")
    learning = parser.add_argument_group("landmarks, segmentation")
    learning.add_argument("--labels", help="numbers of labelled images, as 1,5,10,20,all; default: all")
    learning.add_argument("--seeds", type=int, default=3, help="draws of each number of labels (3); all are drawn once")
    learning.add_argument("--epochs", type=int, help="passes over the training images (virtual points: 300)")
    only = parser.add_argument_group("landmarks")
    what = "virtual points as in DVE (default for descriptors), linear from the run's own landmarks as in the 2017 "
    what += "paper (default for sparse runs), or as equimark fit does it"
    only.add_argument("--regressor", choices=("virtual", "linear", "fit"), help=what)
    only.add_argument("--points", type=int, help="virtual points of each landmark (50)")
    only.add_argument("--shared", action="store_true", help="all landmarks use the same virtual points")
    only.add_argument("--symmetric", metavar="PAIRS", help=f"{_SYMMETRIC}; with --regressor fit")
    what = f"{_DIRECTION}; with --regressor fit"
    only.add_argument("--direction", choices=get_args(Direction), default="auto", help=what)
    what = "label the images that equimark fit --suggest names, among a random half of them; with --regressor fit"
    only.add_argument("--suggested", action="store_true", help=what)
    what = "unit of errors: eyes (default, if known), pupils, box (else), or the distance between two landmarks I,J"
    only.add_argument("--scale", help=what)
    what = "file to keep predictions in, and to score those that are there without predicting again"
    only.add_argument("--predictions", type=Path, help=what)
    what = "picture (PNG) to write: how far confidence can be believed, with --regressor fit on descriptors"
    only.add_argument("--plot", type=Path, help=what)
    parted = parser.add_argument_group("segmentation")
    parted.add_argument("--parts", type=Path, help="folder of label images, named like the images")
    what = "what is kept of a run that is no segmentation: scratch, pretrained (default) or finetuned"
    parted.add_argument("--transfer", choices=("scratch", "pretrained", "finetuned"), default="pretrained", help=what)


def _tabulate_arguments(parser: argparse.ArgumentParser) -> None:
    what = "files that equimark evaluate --out wrote: a row for each, in columns its metrics or numbers of labels"
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help=what)
    what = "metrics to show; default: all, or of several numbers of labels the first"
    parser.add_argument("--metric", nargs="+", metavar="NAME", help=what)
    parser.add_argument("--names", metavar="A,B", help="of the rows; default: those of the files")
    what = "make a row of files that differ in their seeds alone: mean and deviation"
    parser.add_argument("--over-seeds", action="store_true", help=what)
    parser.add_argument("--best", choices=("low", "high"), help="set the best number of each column in bold")
    parser.add_argument("--digits", type=int, default=2, metavar="N", help="after the point (2); a .csv has all")
    what = "table to write: .md, with how each number was made, .csv or .tex"
    parser.add_argument("--out", type=Path, help=what)


def _reproduce_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the table or figure; --list names them")
    parser.add_argument("--list", action="store_true", help="name all tables and figures, their data and their cost")
    parser.add_argument("--root", type=Path, help="folder with a folder for each data set: celeba, 300w, ...")
    parser.add_argument("--out", type=Path, default=Path("runs/papers"), help="for runs, results and tables")
    what = "train and evaluate with so many seeds, from --seed on (1): mean and deviation"
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help=what)
    what = "train with the papers' optimisers, padding and diversity instead of those of the recipes"
    parser.add_argument("--as-printed", action="store_true", help=what)
    parser.add_argument("--quick", action="store_true", help="a trial: a few steps, on whatever subset is there")
    _common(parser, seed=True)


def _app_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help=_RUN)
    parser.add_argument("images", type=Path, help=_IMAGES)
    parser.add_argument("--port", type=int, default=7860, help="on 127.0.0.1 (7860); 0 takes a free one")
    parser.add_argument("--landmarks", type=Path, help="labels to start from")
    parser.add_argument("--work", type=Path, help="folder for labels and exports; default: in the run")
    parser.add_argument("--direction", choices=get_args(Direction), default="auto", help=_DIRECTION)
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="do not open the page")
    _common(parser, frame=True)


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help=_RUN)
    parser.add_argument("--out", type=Path, required=True, help="file to write, ending in .onnx; with --hub a folder")
    parser.add_argument("--head", type=Path, help="a fitted head (see equimark fit), whose landmarks are then found")
    parser.add_argument("--hub", action="store_true", help="write weights, configuration, model card and model.onnx")
    parser.add_argument("--no-onnx", dest="onnx", action="store_false", help="leave model.onnx out of the folder")
    what = "upload the folder to the Hugging Face Hub, as the user that hf auth login has logged in"
    parser.add_argument("--push", metavar="OWNER/NAME", help=what)
    parser.add_argument("--overwrite", action="store_true", help="replace what is there, the model card too")


def _benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--stages", metavar="A,B", help=f"of {', '.join(STAGES)}; default: all")
    parser.add_argument("--repeats", type=int, default=10, help="of each task (10), after those that warm up")
    what = "pairs of a training step; default: 32, of Hourglass 4 on other than CUDA devices"
    parser.add_argument("--batch-size", type=int, metavar="B", help=what)
    parser.add_argument("--files", type=int, metavar="N", help="JPEG files that are packed; default: 256")
    parser.add_argument("--file-side", type=int, metavar="PX", help="of these files in pixels; default: 256")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no", help="of networks in training")
    what = "an earlier --out of the same machine: say what became slower or faster"
    parser.add_argument("--against", type=Path, metavar="FILE", help=what)
    parser.add_argument("--fail-slower", action="store_true", help="exit code 1 if something became slower")
    _common(parser)


def _synthetic_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("portraits", "arm"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help=_SEED)
    parser.add_argument("--parts", type=Path, help="folder to make for the label images of portraits")
    parser.add_argument("--speed", type=float, default=1.0, help="of the arm: how many frames further each frame is")
