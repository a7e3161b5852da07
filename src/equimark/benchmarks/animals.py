"""Animal Faces: about a hundred heads of each of twenty kinds, humans among them.

Home page: https://vcla.stat.ucla.edu/people/zhangzhang-si/HiT/exp5.html (Si and Zhu; terms not stated)::

    BearHead/*.jpg, CatHead/..., HumanHead/..., WolfHead/...     also one folder further down

DVE leaves out the birds (ChickenHead, DuckHead, EagleHead, PigeonHead) and ElephantHead; what is left are fifteen
kinds, all in ``train``, each with at least 50 images. The classes are the kinds. There are no landmarks. Protocol crop
(the paper does not say): the whole image in the middle of a square, its edge repeated beyond it.
"""

from __future__ import annotations

from pathlib import Path

from equimark.benchmarks.layout import SIZES, Layout, inside
from equimark.benchmarks.split import Benchmark, Split, framing

HOME = "https://vcla.stat.ucla.edu/people/zhangzhang-si/HiT/exp5.html"
TREE = "BearHead/, CatHead/, CowHead/ and so on to WolfHead/, each with .jpg files"
KINDS = (
    *("Bear", "Cat", "Cow", "Deer", "Dog", "Human", "Lion", "Monkey"),
    *("Mouse", "Panda", "Pig", "Rabbit", "Sheep", "Tiger", "Wolf"),
)
CROP = framing("letterbox")


def read_animals(root: Path) -> Benchmark:
    """Animal Faces without birds and elephants: ``train``."""
    layout = Layout("animals", root, HOME, TREE)
    folder = inside(root, *(path.parent.name for path in root.glob(f"*/{KINDS[0]}Head")))
    least = SIZES[layout.name]["least of a class"]
    names: list[str] = []
    for kind in KINDS:
        images = layout.listing(folder / f"{kind}Head", ".jpg")
        if len(images) < least and layout.is_complete:
            raise layout.error(f"{folder / kind}Head has {len(images)} images, but at least {least} are published")
        names += [f"{kind}Head/{image}" for image in images]
    classes = tuple(name.split("Head/")[0].lower() for name in names)
    return layout.benchmark({"train": Split(layout.images(folder, names), CROP, classes=classes)})
