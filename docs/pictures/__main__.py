"""The pictures of methods.md, on drawn people and a drawn arm, by the runs of the demonstration.

    make demo
    .venv/bin/python docs/pictures --runs runs/demo

Some five minutes on two cores. All people shown are people that no network has learned from.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

import dense
import labelled
import sparse
import unwarped
from scene import Scene

DPI = 120
COLOURS = 256  # of a picture's palette: a quarter of the bytes, and nobody sees it


DRAWN = {
    "warps": sparse.draw_presets,
    "sparse": sparse.draw_sparse,
    "contributions": sparse.draw_contributions,
    "pairs": unwarped.draw_pairs,
    "unknown": unwarped.draw_unknown,
    "tuned": unwarped.draw_tuned,
    "matching": dense.draw_matching,
    "lengths": dense.draw_lengths,
    "exchange": dense.draw_exchange,
    "reliability": labelled.draw_reliability,
    "supervised": labelled.draw_supervised,
    "segmentation": labelled.draw_segmentation,
}


def save(figure: Figure, path: Path) -> None:
    """Write a small PNG."""
    drawn: Any = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    method = Image.Quantize.MAXCOVERAGE  # the median cut gives small marks the colours of their surroundings
    small = Image.open(drawn).convert("RGB").quantize(COLOURS, method, kmeans=1, dither=Image.Dither.NONE)
    small.save(path, format="PNG", optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draw them, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"), help="what make demo has made")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "images")
    parser.add_argument("--only", nargs="*", choices=DRAWN, default=tuple(DRAWN))
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    scene = Scene.of(arguments.runs)
    for name in arguments.only:
        save(DRAWN[name](scene), arguments.out / f"{name}.png")


if __name__ == "__main__":
    main()
