"""What the page remarks by itself: points that look like a pair, labels that seem to have left and right exchanged.

Each remark has a *key* by which it is known when a person has dismissed it: ``p1 = p2`` for a pair of landmarks,
``a.jpg: p1 = p2, p3 = p4`` for pairs that seem to be exchanged on an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from equimark.app.session import Labels, symmetry_of, to_table
from equimark.symmetry import find_swaps, pairs_of_names, pairs_of_shapes

ENOUGH = 3  # labelled images, to tell pairs by their shapes

Pair = tuple[str, str]  # ids of landmarks


@dataclass(frozen=True)
class Exchange:
    """Pairs of landmarks that seem to be exchanged on an image.

    Args:
        image: its name.
        pairs: by id.
        whole: whether the image seems to be labelled as its mirror image.
    """

    image: str
    pairs: tuple[Pair, ...]
    whole: bool

    @property
    def key(self) -> str:
        """By which it is dismissed: with other pairs it is another remark."""
        return f"{self.image}: {', '.join(sorted(map(key_of_pair, self.pairs)))}"


def key_of_pair(pair: Pair) -> str:
    """By which the remark is dismissed that two landmarks look like a pair."""
    return " = ".join(sorted(pair))


def find_pairs(labels: Labels, names: Sequence[str]) -> list[Pair]:
    """The pairs that names propose, of landmarks that are in none, but for those that were dismissed.

    If names propose nothing and no pair is declared, those that the shapes of images with all landmarks show.

    Args:
        labels: of the person.
        names: of the images there are.
    """
    free = [each for each in labels.landmarks if each.mirror is None]
    ids = {each.name: each.id for each in free}
    pairs = [(ids[a], ids[b]) for a, b in pairs_of_names([each.name for each in free])]
    if not pairs and len(free) == len(labels.landmarks):
        pairs = [(free[a].id, free[b].id) for a, b in _pairs_of_shapes(labels, names)]
    return [pair for pair in pairs if key_of_pair(pair) not in labels.dismissed]


def _pairs_of_shapes(labels: Labels, names: Sequence[str]) -> Sequence[tuple[int, int]]:
    known = set(names)
    whole = [name for name in labels.labelled() if name in known and _shows_all(labels, name)]
    return pairs_of_shapes(to_table(labels, whole).points) if len(whole) >= ENOUGH else ()


def _shows_all(labels: Labels, image: str) -> bool:
    marks = [labels.of(image).get(each.id) for each in labels.landmarks]
    return all(mark is not None and mark.position is not None for mark in marks)


def find_exchanges(labels: Labels, names: Sequence[str]) -> list[Exchange]:
    """Where declared pairs seem to be exchanged, compared with the other labelled images; not what was dismissed.

    Args:
        labels: of the person.
        names: of the images there are.
    """
    symmetry, known = symmetry_of(labels.landmarks), set(names)
    images = [name for name in labels.labelled() if name in known]
    if symmetry is None or not images:
        return []
    ids = [each.id for each in labels.landmarks]
    swaps = find_swaps(to_table(labels, images).points, symmetry)
    found = [
        Exchange(images[swap.row], tuple((ids[a], ids[b]) for a, b in swap.pairs), bool(swap.whole)) for swap in swaps
    ]
    return [each for each in found if each.key not in labels.dismissed]
