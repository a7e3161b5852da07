"""Equimark learns the landmarks of an object category from unlabelled images.

run = equimark.train("photos/", "runs/photos", method="dve", steps=20_000)
run.model.match(source, points, target)
"""

from importlib.metadata import version

from . import objectives
from .config import RunConfig
from .formats import read as read_landmarks
from .formats import write as write_landmarks
from .geometry import Frame
from .head import Head
from .images import ImageError
from .landmarks import LandmarkTable
from .model import LandmarkModel, Landmarks, Matches
from .packs import PackedImages, pack
from .run import Run, train
from .training import TrainingError

__version__ = version("equimark")

__all__ = [
    "Frame",
    "Head",
    "ImageError",
    "LandmarkModel",
    "LandmarkTable",
    "Landmarks",
    "Matches",
    "PackedImages",
    "Run",
    "RunConfig",
    "TrainingError",
    "__version__",
    "objectives",
    "pack",
    "read_landmarks",
    "train",
    "write_landmarks",
]
