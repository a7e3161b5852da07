"""Tables of landmarks that several test files share."""

import numpy as np

from equimark.landmarks import LandmarkTable

NAN = float("nan")


def assert_same(a: LandmarkTable, b: LandmarkTable, atol: float = 0) -> None:
    assert (a.images, a.names, a.splits) == (b.images, b.names, b.splits)
    np.testing.assert_allclose(a.points, b.points, rtol=0, atol=atol)
    for mine, other in ((a.confidence, b.confidence), (a.sizes, b.sizes), (a.scale, b.scale)):
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            np.testing.assert_allclose(mine, other, rtol=0, atol=atol)


def small_table() -> LandmarkTable:
    points = np.arange(12, dtype=float).reshape(3, 2, 2)
    return LandmarkTable(("a", "b", "c"), points, ("l", "r"), points[..., 0] / 12, ("train", "test", "train"))
