"""A robotic arm that moves smoothly before a plain wall: a video whose flow is known exactly.

It stands in for the Roboarm frames of *Dense 3D object coordinates* and *Descriptor vector exchange*. Every segment is
a rigid body painted in its own axes, so the flow between two frames follows from where its segments are.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from equimark.synthetic.canvas import Canvas, Floats, pixels

NAMES = ("base", "upper arm", "forearm", "wrist", "hand", "gripper")
LENGTHS = np.array([19.0, 17.0, 14.0, 11.0, 10.0])  # of the moving segments, in hundredths of the frame
RADII = np.array([7.2, 7.0, 6.4, 5.8, 5.2, 2.4])
SWINGS = np.deg2rad([48.0, 78.0, 98.0, 112.0, 125.0])  # from upright
FLOOR = 92.0
BASE, SHOULDER = 86.0, 80.0  # heights of the centre of the base and of the first joint
PERIODS = (45.0, 170.0)  # frames
SUPERSAMPLING = 3
WALL = -1  # the label of what no segment covers


@dataclass(frozen=True)
class Segment:
    """A rigid body: capsules, and a paint that is a function of its own axes (x along it, from its centre)."""

    bones: Floats  # (n, 5): both ends (x, y) and the radius, in hundredths of the frame
    colour: Floats  # (3,)
    waves: Floats  # (m, 3): wave vector and phase of the pattern

    def depth(self, points: Floats) -> Floats:
        """How deep (P,) points (P, 2) lie inside: 0 at the edge, 1 on the axis of a capsule."""
        start, radius = self.bones[:, None, :2], self.bones[:, 4:]
        along = self.bones[:, None, 2:4] - start
        place = ((points - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
        nearest = start + np.clip(place, 0, 1)[..., None] * along
        depth: Floats = (1 - np.linalg.norm(points - nearest, axis=-1) / radius).max(0)
        return depth

    def paint(self, points: Floats) -> Floats:
        """Colours (P, 3) in [0, 1] of points (P, 2) inside."""
        pattern = np.sin(points @ self.waves[:, :2].T + self.waves[:, 2]).mean(-1)
        bolt = np.linalg.norm(points - self.bones[0, :2], axis=-1) < 0.4 * self.bones[0, 4]
        shade = (0.45 + 0.7 * np.sqrt(np.clip(self.depth(points), 0, 1)) + 0.3 * pattern) * np.where(bolt, 0.55, 1.0)
        colours: Floats = self.colour * shade[:, None]
        return colours


@dataclass(frozen=True)
class Arm:
    """A video of the arm. Pixels are (x, y), and pixel centres are integers."""

    images: NDArray[np.uint8]  # (N, S, S, 3) RGB
    landmarks: NDArray[np.float32]  # (N, 6, 2): the centres of the segments, in pixels
    names: tuple[str, ...]
    segments: tuple[Segment, ...]
    poses: Floats  # (N, 6, 3): centre (x, y), in hundredths of the frame, and clockwise angle from upright

    def flow(self, source: int, target: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Where each pixel of frame ``source`` lies in frame ``target``, and whether it is seen there.

        Returns positions (S, S, 2) in pixels of the target, and a mask (S, S).

        A point is not seen when another segment hides it or when it leaves the frame. The wall stands still.
        """
        size = self.images.shape[1]
        points = Canvas(size).grid().reshape(-1, 2)
        labels = self._labels(source, points)
        moved = points.copy()
        for k in range(len(self.segments)):
            own = labels == k
            moved[own] = _outward(self.poses[target, k], _inward(self.poses[source, k], points[own]))
        position = pixels(moved, size)
        inside = ((position >= -1e-9) & (position <= size - 1 + 1e-9)).all(-1)
        visible = inside & (self._labels(target, moved) == labels)
        return position.reshape(size, size, 2).astype(np.float32), visible.reshape(size, size)

    def displacement(self, source: int, target: int) -> NDArray[np.float32]:
        """How far each pixel (S, S, 2) of frame ``source`` moves to where it lies in frame ``target``.

        NaN where the pixel is not seen there, and on the wall: it stands still and has no marks, so that only its place
        in the frame could tell one of its pixels from another, and whoever learns that learns it of the arm too.
        """
        size = self.images.shape[1]
        axis = np.arange(size, dtype=np.float32)
        position, visible = self.flow(source, target)
        labels = self._labels(source, Canvas(size).grid().reshape(-1, 2)).reshape(size, size)
        known = visible & (labels != WALL)
        moved: NDArray[np.float32] = np.where(
            known[..., None], position - np.stack(np.meshgrid(axis, axis), -1), np.nan
        )
        return moved

    def _labels(self, frame: int, points: Floats) -> NDArray[np.int64]:
        """The foremost segment (P,) at points (P, 2) of the frame, or WALL."""
        labels = np.full(len(points), WALL)
        for k, (segment, pose) in enumerate(zip(self.segments, self.poses[frame], strict=True)):
            labels[_covered(segment, pose, points)] = k
        return labels


def arm(count: int, *, seed: int = 0, size: int = 90, speed: float = 1.0) -> Arm:
    """The first ``count`` frames, of ``size`` x ``size`` pixels, of the video numbered ``seed``.

    At ``speed`` 1 the arm moves by a fraction of a pixel from frame to frame, as before a camera; more of it makes
    fewer frames show more poses.
    """
    rng = np.random.default_rng(seed)
    segments = tuple(_draw_segment(rng, k) for k in range(len(NAMES)))
    poses = _poses(_angles(rng, count, speed))
    fine = size * SUPERSAMPLING
    points = Canvas(fine).grid().reshape(-1, 2)
    wall = np.tile([0.62, 0.61, 0.59], (len(points), 1))  # with a pattern it would tell where in the frame a point is
    wall[points[:, 1] > FLOOR] *= 0.72
    images = np.empty((count, size, size, 3), np.uint8)
    for image, pose in zip(images, poses, strict=True):
        image[:] = _render(segments, pose, points, wall, fine)
    landmarks = pixels(poses[..., :2], size).astype(np.float32)
    return Arm(images, landmarks, NAMES, segments, poses)


def _draw_segment(rng: np.random.Generator, k: int) -> Segment:
    """Segments are alike in colour and pattern, so that a local patch does not tell which one it shows."""
    length, radius = (0.0, *LENGTHS)[k], RADII[k]
    reach = length / 2
    bones = [[-reach, 0, reach, 0, radius]]
    if k == 0:
        bones = [[BASE - SHOULDER, 0, 2, 0, radius], [-1, -9, -1, 9, 5]]
    elif k == len(NAMES) - 1:
        bones = [[-reach, 0, -reach / 2, 0, 2 * radius]]
        bones += [[-reach / 2, side, reach, 0.8 * side, radius] for side in (-4.0, 4.0)]
    colour = np.array([0.86, 0.47, 0.20]) * (1 + 0.08 * rng.standard_normal(3))
    direction, turn = rng.uniform(0, np.pi, 3), rng.uniform(0, 2 * np.pi, 3)
    waves = np.column_stack([np.cos(direction), np.sin(direction), turn])
    waves[:, :2] *= rng.uniform(0.35, 0.8, (3, 1))
    return Segment(np.array(bones, float), colour, waves)


def _angles(rng: np.random.Generator, count: int, speed: float) -> Floats:
    """Smooth angles (N, 5) of the moving segments from upright: each a sum of three slow waves."""
    weights = np.array([0.5, 0.3, 0.2])
    frequency = 2 * np.pi / rng.uniform(*PERIODS, (len(SWINGS), 3))
    phase = rng.uniform(0, 2 * np.pi, (len(SWINGS), 3))
    angles: Floats = SWINGS * (np.sin(speed * np.arange(count)[:, None, None] * frequency + phase) @ weights)
    return angles


def _poses(angles: Floats) -> Floats:
    """Angles (N, 5) -> poses (N, 6, 3). The base slides on the floor so that the arm stays within the frame."""
    steps = LENGTHS[:, None] * np.stack([np.sin(angles), -np.cos(angles)], axis=-1)
    ends = steps.cumsum(axis=1)
    across = 50 - 0.8 * ends[..., 0].mean(axis=1)
    base, shoulder = (np.stack([across, np.full_like(across, y)], axis=-1)[:, None] for y in (BASE, SHOULDER))
    centres = np.concatenate([base, shoulder + ends - steps / 2], axis=1)
    return np.concatenate([centres, np.pad(angles, ((0, 0), (1, 0)))[..., None]], axis=-1)


def _axes(pose: Floats) -> Floats:
    """The segment's own x and y axis (2, 2), one a row, in the frame."""
    sine, cosine = np.sin(pose[2]), np.cos(pose[2])
    return np.array([[sine, -cosine], [cosine, sine]])


def _inward(pose: Floats, points: Floats) -> Floats:
    """Points (P, 2) of the frame -> the segment's own axes."""
    own: Floats = (points - pose[:2]) @ _axes(pose).T
    return own


def _outward(pose: Floats, points: Floats) -> Floats:
    """Points (P, 2) of the segment's own axes -> the frame."""
    placed: Floats = points @ _axes(pose) + pose[:2]
    return placed


def _covered(segment: Segment, pose: Floats, points: Floats) -> NDArray[np.int64]:
    """Which points (P, 2) of the frame a segment covers, by index."""
    ends = segment.bones[:, :4].reshape(-1, 2, 2)
    reach = np.linalg.norm(ends, axis=-1).max() + segment.bones[:, 4].max()
    near = np.flatnonzero((np.abs(points - pose[:2]) < reach).all(-1))
    covered: NDArray[np.int64] = near[segment.depth(_inward(pose, points[near])) > 0]
    return covered


def _render(segments: tuple[Segment, ...], poses: Floats, points: Floats, wall: Floats, fine: int) -> NDArray[np.uint8]:
    """One frame (S, S, 3), painted at ``fine`` x ``fine`` points and reduced."""
    colour = wall.copy()
    for segment, pose in zip(segments, poses, strict=True):
        covered = _covered(segment, pose, points)
        colour[covered] = segment.paint(_inward(pose, points[covered]))
    picture = np.round(255 * np.clip(colour, 0, 1)).astype(np.uint8).reshape(fine, fine, 3)
    return np.asarray(Image.fromarray(picture).reduce(SUPERSAMPLING))
