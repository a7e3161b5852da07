"""The shape of a drawn face: who is shown, how, and where each of the 68 landmarks then lies.

Lengths are hundredths of the frame. The head's own axes start midway between the eyes: x to the right of the image, y
down, z towards the viewer.
"""

from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Parameters = TypeVar("Parameters")

JAW, LEFT_BROW, RIGHT_BROW = slice(0, 17), slice(17, 22), slice(22, 27)
RIDGE, NOSTRILS = slice(27, 31), slice(31, 36)
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
LIPS, LIP_LINE = slice(48, 60), slice(60, 68)

ORIGIN = np.array([50.0, 47.0])  # where the point between the eyes stands in an upright, unshifted portrait
LEFT, RIGHT = -1.0, 1.0  # sides of the image


def within(low: float, high: float) -> Any:
    """A field whose value `drawn` picks evenly between two bounds."""
    return field(metadata={"range": (low, high)})


def drawn(kind: type[Parameters], rng: np.random.Generator) -> Parameters:
    """One dataclass of `within` fields, all picked independently."""
    return kind(**{each.name: rng.uniform(*each.metadata["range"]) for each in fields(kind)})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Shape:
    """The bones and features of one person."""

    width: float = within(24.0, 29.5)  # half the width of the head
    chin: float = within(33.0, 39.5)  # below the eyes
    crown: float = within(28.0, 34.0)  # above the eyes
    jaw: float = within(0.68, 1.12)  # small: square, large: pointed
    depth: float = within(0.85, 1.1)  # of the head, in half widths
    ear: float = within(4.0, 7.0)
    neck: float = within(0.48, 0.68)  # in half widths of the head
    shoulders: float = within(38.0, 56.0)
    eye_distance: float = within(0.40, 0.485)  # from the middle, in half widths of the head
    eye_width: float = within(4.6, 6.5)  # half of it
    eye_height: float = within(1.9, 3.4)
    eye_tilt: float = within(-0.7, 1.2)  # the outer corner stands higher by twice this
    iris: float = within(2.1, 2.8)
    brow_height: float = within(6.3, 9.6)
    brow_arch: float = within(0.2, 2.6)
    brow_tilt: float = within(-0.7, 1.2)
    brow_width: float = within(1.2, 1.6)  # in eye widths
    brow_weight: float = within(0.5, 1.7)
    nose_length: float = within(0.37, 0.48)  # of the chin's distance
    nose_width: float = within(4.2, 7.4)
    nose_bridge: float = within(1.5, 2.7)
    nose_height: float = within(3.5, 7.5)  # how far the tip stands out
    mouth_place: float = within(0.40, 0.52)  # between the nose and the chin
    mouth_width: float = within(7.2, 11.2)
    upper_lip: float = within(1.3, 3.0)
    lower_lip: float = within(1.8, 3.8)
    nose_skew: float = within(-0.7, 0.7)
    mouth_skew: float = within(-0.9, 0.9)
    brow_skew: float = within(-0.7, 0.7)

    @property
    def eye_x(self) -> float:
        """Where the eyes stand to either side of the middle."""
        return self.eye_distance * self.width

    @property
    def nose_y(self) -> float:
        """Height of the tip of the nose."""
        return self.nose_length * self.chin

    @property
    def mouth_y(self) -> float:
        """Height of the line between the lips."""
        return self.nose_y + 3.0 + self.mouth_place * (self.chin - self.nose_y - 3.0)


@dataclass(frozen=True)
class Pose:
    """How the head is held in one picture, and what the face does."""

    turn: float = within(-12.0, 12.0)  # degrees, in the image plane
    yaw: float = within(-17.0, 17.0)
    pitch: float = within(-9.0, 9.0)
    scale: float = within(0.92, 1.08)
    shift_x: float = within(-5.0, 5.0)
    shift_y: float = within(-5.0, 2.0)
    smile: float = within(-0.4, 1.6)
    jaw_drop: float = within(-7.0, 7.0)  # a mouth is closed below 0
    brow_raise: float = within(-1.0, 2.2)
    eyelids: float = within(0.5, 1.15)  # 1: wide open
    gaze_x: float = within(-1.6, 1.6)
    gaze_y: float = within(-0.7, 0.7)

    @property
    def gap(self) -> float:
        """Opening between the lips."""
        return max(self.jaw_drop, 0.0)


@dataclass(frozen=True)
class Head:
    """A shape in a pose: maps the head's axes to the frame."""

    shape: Shape
    pose: Pose

    def surface(self, points: Floats) -> Floats:
        """Points (n, 2) of the face -> (n, 3), lifted onto an ellipsoid."""
        shape = self.shape
        height = np.where(points[:, 1] > 0, shape.chin * 1.15, shape.crown * 1.15)
        outside = (points[:, 0] / shape.width) ** 2 + (points[:, 1] / height) ** 2
        z = shape.depth * shape.width * np.sqrt(np.clip(1 - outside, 0, None))
        return np.column_stack([points, z])

    def place(self, points: Floats) -> Floats:
        """Points (n, 2) of the face or (n, 3) -> (n, 2) in the frame.

        Yaw and pitch only move a point by its depth, as the outline of an ellipsoid stays where it is when it turns.
        """
        solid = self.surface(points) if points.shape[1] == 2 else points
        yaw, pitch, turn = np.deg2rad([self.pose.yaw, self.pose.pitch, self.pose.turn])
        flat = solid[:, :2] + solid[:, 2:] * np.sin([yaw, pitch])
        rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        placed: Floats = flat @ rotation * self.pose.scale + ORIGIN + [self.pose.shift_x, self.pose.shift_y]
        return placed

    def unplace(self, points: Floats) -> Floats:
        """Frame points (..., 2) -> (..., 2) in the head's axes, ignoring depth."""
        turn = np.deg2rad(self.pose.turn)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        moved: Floats = (points - ORIGIN - [self.pose.shift_x, self.pose.shift_y]) @ rotation / self.pose.scale
        return moved

    def landmarks(self) -> Floats:
        """The 68 landmarks (68, 2) in the frame, in iBUG order."""
        shape, pose = self.shape, self.pose
        surface = (
            _brow(shape, pose, LEFT),
            _brow(shape, pose, RIGHT),
            _ridge(shape),
            _nostrils(shape),
            _eye(shape, pose, LEFT),
            _eye(shape, pose, RIGHT),
            _mouth(shape, pose),
        )
        solid = np.concatenate([_jaw(shape, pose), self.surface(np.concatenate(surface))])
        solid[RIDGE, 2] += np.linspace(0.05, 1, 4) * shape.nose_height
        solid[NOSTRILS, 2] += np.array([0.1, 0.3, 0.5, 0.3, 0.1]) * shape.nose_height
        return self.place(solid)

    def skull(self) -> Floats:
        """Outline (9, 2) of the head over the eyes, in the frame, from the right ear to the left one."""
        angle = np.linspace(0, np.pi, 11)[1:-1]
        arch = np.column_stack([self.shape.width * np.cos(angle), -self.shape.crown * np.sin(angle)])
        return self.place(np.column_stack([arch, np.zeros(9)]))


def _jaw(shape: Shape, pose: Pose) -> Floats:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 17)
    x = shape.width * np.sign(angle) * np.abs(np.sin(angle)) ** shape.jaw
    y = shape.chin * np.cos(angle) + 0.6 * pose.gap * np.cos(angle) ** 2
    z = 0.45 * shape.depth * shape.width * np.cos(angle)  # the chin stands out, the ears do not
    return np.column_stack([x, y, z])


def _brow(shape: Shape, pose: Pose, side: float) -> Floats:
    u = np.linspace(-1, 1, 5)
    y = -shape.brow_height - pose.brow_raise - shape.brow_arch * (1 - (u - 0.2 * side) ** 2)
    y += -shape.brow_tilt * side * u + shape.brow_skew * side
    return np.column_stack([side * shape.eye_x + shape.brow_width * shape.eye_width * u, y])


def _ridge(shape: Shape) -> Floats:
    t = np.linspace(0, 1, 4)
    return np.column_stack([shape.nose_skew * t, t * shape.nose_y])


def _nostrils(shape: Shape) -> Floats:
    u = np.linspace(-1, 1, 5)
    return np.column_stack([shape.nose_skew + shape.nose_width * u, shape.nose_y + 3.2 - 0.8 * np.abs(u)])


def _eye(shape: Shape, pose: Pose, side: float) -> Floats:
    u = np.array([-1.0, -0.42, 0.42, 1.0, 0.42, -0.42])
    lid = np.array([0.0, -1.0, -1.0, 0.0, 0.62, 0.62])
    y = shape.eye_height * lid * np.where(lid < 0, pose.eyelids, 1.0 - 0.25 * max(pose.smile, 0.0))
    return np.column_stack([side * shape.eye_x + shape.eye_width * u, y - shape.eye_tilt * side * u])


def _mouth(shape: Shape, pose: Pose) -> Floats:
    """The outer edge of the lips, then the inner one; an open mouth moves the lower lip down."""
    width = shape.mouth_width * (1 + 0.13 * pose.smile)
    u = np.array([-1, -0.62, -0.22, 0, 0.22, 0.62, 1, 0.62, 0.25, 0, -0.25, -0.62])
    lip = np.array([0, -0.66, -1.0, -0.8, -1.0, -0.66, 0, 0.72, 1.0, 1.06, 1.0, 0.72])
    drop = np.array([0, 0, 0, 0, 0, 0, 0, 0.75, 1, 1, 1, 0.75])
    inner_u = np.array([-0.86, -0.42, 0, 0.42, 0.86, 0.42, 0, -0.42])
    inner_drop = np.array([0, 0, 0, 0, 0, 0.85, 1, 0.85])
    outer_y = lip * np.where(lip < 0, shape.upper_lip, shape.lower_lip) + drop * pose.gap
    x = np.concatenate([u, inner_u])
    y = np.concatenate([outer_y, inner_drop * pose.gap])
    corners = -2.6 * pose.smile * (np.abs(x) ** 2 - 0.25)  # a smile lifts the corners, and lowers the middle a little
    return np.column_stack([shape.mouth_skew + width * x, shape.mouth_y + y + corners])
