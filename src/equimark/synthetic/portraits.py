"""Drawn portraits: faces of many identities whose landmarks and parts are known exactly."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from equimark.synthetic.anatomy import (
    JAW,
    LEFT,
    LEFT_BROW,
    LEFT_EYE,
    LIP_LINE,
    LIPS,
    NOSTRILS,
    RIDGE,
    RIGHT,
    RIGHT_BROW,
    RIGHT_EYE,
    Head,
    Pose,
    drawn,
    within,
)
from equimark.synthetic.backdrops import paint_backdrop
from equimark.synthetic.canvas import Canvas, Floats, Mask, mirrored, mottle, oval, pixels, ribbon, spline
from equimark.synthetic.people import Glasses, Identity, draw_identity

PARTS = ("background", "skin", "hair", "brows", "eyes", "nose", "mouth")
BACKGROUND, SKIN, HAIR, BROWS, EYES, NOSE, MOUTH = range(7)
IDENTITY_STREAM, PICTURE_STREAM = 0, 1  # one generator per source of randomness

WHITE = np.ones(3)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # how bright red, green and blue look
SCLERA = np.array([0.90, 0.88, 0.86])
THROAT = np.array([0.22, 0.06, 0.06])
TEETH = np.array([0.90, 0.87, 0.82])


@dataclass(frozen=True)
class Portraits:
    """Pictures of drawn people, and where everything is in them.

    ``parts`` names what a pixel shows by its place in ``PARTS``. Clothes are background; ears and neck are skin; a
    beard is hair; spectacles are looked through, even when they are dark.
    """

    images: NDArray[np.uint8]  # (N, S, S, 3) RGB
    landmarks: NDArray[np.float32]  # (N, 68, 2) pixels (x, y), pixel centres at integers, iBUG order
    parts: NDArray[np.uint8]  # (N, S, S)
    identities: NDArray[np.int64]  # (N,)

    @property
    def landmarks5(self) -> NDArray[np.float32]:
        """Centres of the left and right eye of the image, tip of the nose, left and right corner of the mouth."""
        eyes = [self.landmarks[:, eye].mean(axis=1) for eye in (LEFT_EYE, RIGHT_EYE)]
        return np.stack([*eyes, *(self.landmarks[:, i] for i in (30, 48, 54))], axis=1)


@dataclass(frozen=True)
class Light:
    """How a picture is lit and taken."""

    side: float = within(-1.0, 1.0)  # where the light comes from: x
    height: float = within(-0.9, 0.3)  # y: mostly from above
    strength: float = within(0.15, 0.6)
    exposure: float = within(0.82, 1.12)
    red: float = within(0.93, 1.07)
    blue: float = within(0.91, 1.07)
    grain: float = within(0.004, 0.016)


def portraits(count: int, *, seed: int = 0, size: int = 100, identities: int | None = None) -> Portraits:
    """Draw ``count`` portraits of ``size`` x ``size`` pixels.

    Image i shows identity ``i % identities``, or one of its own by default, and depends on no other image.
    """
    if identities is not None and identities < 1:
        raise ValueError(f"identities is {identities}; give at least 1, or None for a new person in every image")
    who = np.arange(count, dtype=np.int64)
    if identities is not None:
        who %= identities
    images = np.empty((count, size, size, 3), np.uint8)
    parts = np.empty((count, size, size), np.uint8)
    landmarks = np.empty((count, 68, 2), np.float32)
    for i, person in enumerate(who):
        identity = draw_identity(np.random.default_rng((seed, IDENTITY_STREAM, int(person))))
        rng = np.random.default_rng((seed, PICTURE_STREAM, i))
        head = Head(identity.shape, drawn(Pose, rng))
        canvas = Canvas(size)
        _Portraitist(identity, head, canvas, rng).paint(drawn(Light, rng))
        images[i] = np.round(255 * np.clip(canvas.colour, 0, 1))
        parts[i] = canvas.parts
        landmarks[i] = pixels(head.landmarks(), size)
    return Portraits(images, landmarks, parts, who)


@dataclass
class _Portraitist:
    """Paints one person in one pose; every method adds a layer, and `paint` calls them back to front."""

    person: Identity
    head: Head
    canvas: Canvas
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.points = self.head.landmarks()
        self.outline = spline(np.concatenate([self.points[JAW], self.head.skull()]), closed=True, steps=4)
        self.upright = self.head.unplace(self.canvas.grid()).astype(np.float32)
        strands = np.random.default_rng(self.person.texture).standard_normal(240)
        x, y = self.upright[..., 0], self.upright[..., 1] + self.person.shape.crown + 6
        strands = np.interp(np.arctan2(x, y), np.linspace(-np.pi, np.pi, len(strands)), strands)
        self.strands = (strands * np.minimum(np.hypot(x, y) / 14, 1))[..., None]  # too fine to see near the crown

    def paint(self, light: Light) -> None:
        """All of the picture."""
        paint_backdrop(self.canvas, self.rng)
        self.illuminate(light)
        self.clothes()
        self.back_hair()
        self.neck_and_ears()
        self.face()
        self.relief(light)
        self.beard()
        self.nose(light)
        self.mouth()
        self.eye(LEFT_EYE)
        self.eye(RIGHT_EYE)
        self.brows()
        self.front_hair()
        if self.person.glasses is not None:
            self.glasses(self.person.glasses)
        self.expose(light)

    def spot(self, x: float, y: float, radius_x: float, radius_y: float) -> Mask:
        """A soft spot (S, S) at a place of the face."""
        centre = self.head.unplace(self.head.place(np.array([[x, y]])))[0]
        apart = (self.upright - centre.astype(np.float32)) / np.array([radius_x, radius_y], np.float32)
        spot: Mask = np.exp(-0.5 * (apart[..., 0] ** 2 + apart[..., 1] ** 2))
        return spot

    def illuminate(self, light: Light) -> None:
        """Light the head as an ellipsoid, and all else as if it continued it."""
        shape = self.head.shape
        slope = self.upright / [shape.width * 1.2, shape.chin * 1.15]
        slope = slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True) / 0.9, 1)
        facing = np.sqrt(1 - (slope**2).sum(-1))
        direction = np.array([light.side, light.height])
        brightness = 1 + light.strength * (slope @ direction + 0.5 * (facing - 0.75))
        self.canvas.light = brightness[..., None].astype(np.float32)

    def clothes(self) -> None:
        shape, canvas = self.head.shape, self.canvas
        neck, rim = shape.neck * shape.width, shape.shoulders
        body = mirrored(np.array([[rim + 4, 75], [rim, 62], [0.62 * rim, 52.5], [neck, 46]]))
        plain, stripe = self.person.clothes
        weave = np.sin(canvas.grid()[..., 1:] * (0.3 + plain[0])) > 1.4 * stripe[0]
        cloth = np.where(weave, stripe, plain) + 0.03 * mottle(self.rng, canvas.size, 30)
        canvas.paint(canvas.mask(spline(body + self.head.place(np.zeros((1, 3))))), cloth)

    def hair_colour(self) -> Floats:
        """Strands that run from the crown, with a band of gloss over the forehead."""
        gloss = self.spot(4, -self.head.shape.crown * 0.95, 15, 4.5)[..., None]
        colour: Floats = self.person.hair * (1 + 0.2 * self.strands) + 0.10 * gloss * (1 + 0.7 * self.strands)
        return colour

    def crest(self) -> Floats:
        """The outline (25, 2) of the hair over the head, in the head's axes, from right to left."""
        shape, style = self.head.shape, self.person.style
        angle = np.linspace(-0.05, np.pi + 0.05, 25)
        return np.column_stack(
            [(shape.width + style.sides) * np.cos(angle), -(shape.crown + style.volume) * np.sin(angle)]
        )

    def curls(self, outline: Floats) -> Floats:
        """By how much (n, 2) curls disturb an outline (n, 2)."""
        return self.person.style.curl * np.column_stack([np.sin(outline[:, 1] * 0.55), np.cos(outline[:, 0] * 0.55)])

    def back_hair(self) -> None:
        shape, style = self.head.shape, self.person.style
        side = np.column_stack([np.full(11, shape.width + style.sides), np.linspace(2, 2 + style.length, 11)])
        outline = np.concatenate([side[::-1], self.crest(), side * [-1, 1]])
        locks = [spline(self.flat(outline + self.curls(outline)), steps=3)]
        if style.bun:
            locks.append(oval(self.flat(np.array([[0.0, -shape.crown - 5]]))[0], style.bun, style.bun * 0.8))
        if style.hairline:
            self.canvas.paint(self.canvas.mask(*locks), 0.75 * self.hair_colour(), HAIR)

    def flat(self, points: Floats) -> Floats:
        """Points (n, 2) in the plane of the head's outline -> (n, 2) in the frame."""
        return self.head.place(np.column_stack([points, np.zeros(len(points))]))

    def neck_and_ears(self) -> None:
        shape, canvas = self.head.shape, self.canvas
        half = shape.neck * shape.width
        top, bottom = self.head.place(np.array([[0.0, 0.4 * shape.chin]]))[0], self.head.place(np.zeros((1, 3)))[0]
        neck = mirrored(np.array([[half, 0], [half, 20], [1.15 * half, 46], [0.5 * half, 52]]))
        neck = np.where(neck[:, 1:] > 0, bottom + neck, top + neck)
        canvas.paint(canvas.mask(spline(neck)), 0.86 * self.person.skin, SKIN)
        shadow = canvas.mask(neck) * canvas.mask(self.outline + np.array([0, 5.0]), blur=2.5)
        canvas.tint(shadow, np.array([0.62, 0.56, 0.55]))
        places = self.head.place(np.array([[side * (shape.width + 0.8), 4.0, -5.0] for side in (LEFT, RIGHT)]))
        ears = canvas.mask(*(oval(place, 0.5 * shape.ear, 1.15 * shape.ear) for place in places))
        hollows = canvas.mask(*(oval(place, 0.22 * shape.ear, 0.7 * shape.ear) for place in places), blur=0.8)
        canvas.paint(ears, 0.9 * self.person.skin, SKIN)
        canvas.tint(hollows, 0.7)

    def face(self) -> None:
        canvas, size = self.canvas, self.canvas.size
        pores = 0.018 * mottle(self.rng, size, size // 2) + 0.02 * mottle(self.rng, size, 12)
        canvas.paint(canvas.mask(self.outline), self.person.skin * (1 + pores), SKIN)
        if len(self.person.freckles):
            spots = [oval(place, 0.4, 0.4) for place in self.head.place(self.person.freckles)]
            canvas.tint(canvas.mask(*spots), np.array([0.72, 0.6, 0.55]))

    def relief(self, light: Light) -> None:
        """Sockets, cheeks, temples and chin, inside the face."""
        shape, canvas = self.head.shape, self.canvas
        inside = canvas.mask(self.outline)
        for side in (LEFT, RIGHT):
            socket = self.spot(side * shape.eye_x, -1.5, 1.25 * shape.eye_width, 3.6)
            canvas.tint(0.34 * socket * inside, np.array([0.5, 0.4, 0.42]))
            cheek = self.spot(side * shape.width * 0.58, shape.nose_y + 1, 5.5, 4.5)
            canvas.tint(0.20 * cheek * inside, np.array([1.15, 0.72, 0.70]))
            fold = [[1.15 * shape.nose_width, shape.nose_y + 1], [1.28 * shape.mouth_width, shape.mouth_y - 1]]
            crease = self.head.place(np.array(fold) * [side, 1])
            canvas.tint(0.30 * canvas.mask(ribbon(crease, 1.6), blur=0.9), 0.55)
        lip = self.spot(shape.mouth_skew, shape.mouth_y + shape.lower_lip + self.head.pose.gap + 2.2, 4.5, 1.3)
        canvas.tint(0.35 * lip * inside, 0.55)
        canvas.tint(0.25 * self.spot(light.side * 9, -0.62 * shape.crown, 8, 5) * inside, 1.3)

    def beard(self) -> None:
        shape, beard, points = self.head.shape, self.person.beard, self.points
        nose, mouth = shape.nose_y + 4.5, shape.mouth_y
        reach = 1.3 * shape.mouth_width
        upper = mirrored(np.array([[0.86 * shape.width, 4], [0.7 * shape.width, mouth - 6], [reach, mouth - 2]]))
        jaw = points[JAW] + [0, 0.8]
        cheeks = np.concatenate([jaw[1:16], self.head.place(upper)[::-1]])
        chin = np.concatenate([jaw[6:11], self.head.place(np.array([[-reach, mouth - 1], [reach, mouth - 1]]))[::-1]])
        whiskers = [[0, mouth + 0.5], [reach, mouth + 1], [0.8 * reach, mouth - 2.2], [0, nose]]
        moustache = self.head.place(mirrored(np.array(whiskers)))
        bristle = self.person.hair * (0.85 + 0.22 * mottle(self.rng, self.canvas.size, self.canvas.size // 2))
        for opacity, polygon in ((beard.cheeks, cheeks), (beard.chin, chin), (beard.moustache, moustache)):
            if opacity:
                self.canvas.paint(opacity * self.canvas.mask(polygon, blur=0.9), bristle, HAIR)

    def nose(self, light: Light) -> None:
        shape, canvas, points = self.head.shape, self.canvas, self.points
        ridge, base = points[RIDGE], points[NOSTRILS]
        across = (base[4] - base[0]) / np.linalg.norm(base[4] - base[0])
        up = np.array([across[1], -across[0]])
        bridge, wing = shape.nose_bridge * across, 0.3 * shape.nose_width
        left = [ridge[0] - bridge, ridge[2] - 1.1 * bridge, base[0] - 0.10 * wing * across + wing * up]
        right = [base[4] + 0.10 * wing * across + wing * up, ridge[2] + 1.1 * bridge, ridge[0] + bridge]
        flank = [ridge[0], ridge[3], base[2]]
        nose = spline(np.array([*left, *base, *right]), steps=4)
        canvas.parts[canvas.mask(nose) > 0.5] = NOSE
        canvas.tint(0.5 * canvas.mask(nose, blur=1.2), np.array([1.03, 0.93, 0.91]))
        dark, bright = (left, right[::-1]) if light.side > 0 else (right[::-1], left)
        canvas.tint(0.70 * canvas.mask(np.array([*dark, *flank[::-1]]), blur=1.1), np.array([0.66, 0.58, 0.56]))
        canvas.tint(0.2 * canvas.mask(np.array([*bright, *flank[::-1]]), blur=1.3), 1.2)
        canvas.tint(0.45 * canvas.mask(ribbon(ridge[1:], 1.8), blur=0.9), 1.35)
        canvas.tint(0.7 * canvas.mask(ribbon(spline(base), 1.0), blur=0.4), np.array([0.5, 0.38, 0.36]))
        wings = [
            spline(np.array([side[2], end, end + 0.35 * (other - end)]))
            for side, end, other in ((left, base[0], base[1]), (right[::-1], base[4], base[3]))
        ]
        canvas.tint(0.6 * canvas.mask(*(ribbon(wing, 1.1) for wing in wings), blur=0.5), np.array([0.55, 0.42, 0.4]))
        holes = [oval(base[i] + 0.5 * up, 0.22 * shape.nose_width, 0.75) for i in (1, 3)]
        canvas.tint(0.8 * canvas.mask(*holes, blur=0.3), np.array([0.32, 0.2, 0.2]))

    def mouth(self) -> None:
        canvas, points, person = self.canvas, self.points, self.person
        outer, inner = points[LIPS], points[LIP_LINE]
        upper_edge, lower_edge = spline(outer[:7]), spline(outer[[6, 7, 8, 9, 10, 11, 0]])
        upper_line, lower_line = spline(inner[:5]), spline(inner[[4, 5, 6, 7, 0]])
        canvas.paint(canvas.mask(np.concatenate([upper_edge, lower_edge])), person.lips, MOUTH)
        canvas.tint(0.5 * canvas.mask(np.concatenate([upper_edge, upper_line[::-1]])), 0.75)
        canvas.tint(0.4 * canvas.mask(ribbon(0.5 * (outer[7:12] + inner[[5, 5, 6, 7, 7]])[1:4], 0.9), blur=0.5), 1.5)
        hollow = np.concatenate([upper_line, lower_line])
        canvas.paint(canvas.mask(hollow), THROAT)
        teeth = canvas.mask(hollow) * canvas.mask(np.concatenate([upper_line, (upper_line + self.down(2.4))[::-1]]))
        canvas.paint(0.9 * teeth, TEETH)
        canvas.tint(0.75 * canvas.mask(ribbon(upper_line, 0.7)), np.array([0.35, 0.22, 0.22]))

    def down(self, length: float) -> Floats:
        """A step (2,) down the face, in the frame."""
        step: Floats = np.subtract(*self.flat(np.array([[0.0, length], [0.0, 0.0]])))
        return step

    def eye(self, which: slice) -> None:
        canvas, shape, pose, person = self.canvas, self.head.shape, self.head.pose, self.person
        points = self.points[which]
        upper, lower = spline(points[:4]), spline(points[[3, 4, 5, 0]])
        almond = canvas.mask(np.concatenate([upper, lower]))
        canvas.paint(almond, SCLERA, EYES)
        gaze = 0.5 * (points[0] + points[3]) + [pose.gaze_x, pose.gaze_y] - self.down(0.3 * shape.eye_height)
        canvas.paint(almond * canvas.mask(oval(gaze, shape.iris, shape.iris)), 0.55 * person.iris)
        canvas.paint(almond * canvas.mask(oval(gaze, 0.8 * shape.iris, 0.8 * shape.iris)), 1.25 * person.iris)
        canvas.paint(almond * canvas.mask(oval(gaze, 0.42 * shape.iris, 0.42 * shape.iris)), 0.03)
        canvas.paint(canvas.mask(oval(gaze - 0.35 * shape.iris, 0.5, 0.5)) * almond, WHITE)
        canvas.tint(0.6 * almond * canvas.mask(ribbon(upper + self.down(0.5), 1.6), blur=0.5), 0.5)
        taper = 0.35 + 0.65 * np.sin(np.linspace(0.15, np.pi - 0.15, len(upper)))
        canvas.paint(0.85 * canvas.mask(ribbon(upper, 1.1 * taper)), 0.35 * person.brows)
        canvas.tint(0.45 * canvas.mask(ribbon(upper - self.down(1.7), 0.7 * taper), blur=0.3), 0.5)
        canvas.tint(0.45 * canvas.mask(ribbon(lower, 0.5), blur=0.3), 0.55)

    def brows(self) -> None:
        weight = self.head.shape.brow_weight
        for which, thickness in ((LEFT_BROW, [0.5, 0.9, 1.2, 1.35, 1.0]), (RIGHT_BROW, [1.0, 1.35, 1.2, 0.9, 0.5])):
            line = spline(self.points[which])
            width = (0.9 + weight) * np.interp(np.linspace(0, 4, len(line)), np.arange(5), thickness)
            hairs = self.person.brows * (1 + 0.15 * self.strands)
            self.canvas.paint(0.92 * self.canvas.mask(ribbon(line, width), blur=0.25), hairs, BROWS)

    def front_hair(self) -> None:
        shape, style = self.head.shape, self.person.style
        if not style.hairline:
            return
        crest = self.crest()
        across = np.array([-0.95, -0.8, -0.42, 0.0, 0.42, 0.8, 0.95])
        edge = np.column_stack([shape.width * across, -shape.crown * np.array(style.hairline)])
        lock = np.concatenate([self.flat(crest + self.curls(crest)), spline(self.head.place(edge), steps=4)])
        shadow = self.canvas.mask(lock + self.down(1.6), blur=1.2) * self.canvas.mask(self.outline)
        self.canvas.tint(0.4 * shadow, 0.5)
        self.canvas.paint(self.canvas.mask(lock), self.hair_colour(), HAIR)

    def glasses(self, glasses: Glasses) -> None:
        canvas, shape = self.canvas, self.head.shape
        eyes = [self.points[eye].mean(axis=0) + self.down(0.6) for eye in (LEFT_EYE, RIGHT_EYE)]
        radii = np.array(glasses.radius) * shape.eye_width
        wide, high = radii + glasses.rim
        lenses = canvas.mask(*(self.tilted(oval(eye, radii[0], radii[1], glasses.power), eye) for eye in eyes))
        rims = canvas.mask(*(self.tilted(oval(eye, wide, high, glasses.power), eye) for eye in eyes)) - lenses
        ears = self.flat(np.array([[LEFT * shape.width, -1.0], [RIGHT * shape.width, -1.0]]))
        outward: Floats = np.subtract(*self.flat(np.array([[radii[0], 0.0], [0.0, 0.0]])))
        bars = [[ears[0], eyes[0] - outward], [eyes[0] + outward, eyes[1] - outward], [eyes[1] + outward, ears[1]]]
        glare = canvas.mask(*(oval(eye - 0.35 * radii, 0.3 * radii[0], 0.3 * radii[1]) for eye in eyes), blur=0.8)
        canvas.paint(glasses.lens * lenses, 0.25 * glasses.colour + 0.02)
        canvas.paint(0.25 * glare, WHITE)
        canvas.paint(rims, glasses.colour)
        canvas.paint(canvas.mask(*(ribbon(np.array(bar), glasses.rim) for bar in bars)), glasses.colour)

    def tilted(self, points: Floats, centre: Floats) -> Floats:
        """Turn points (n, 2) of the frame about a centre as the head is turned."""
        return self.flat(points - centre) - self.flat(np.zeros((1, 2))) + centre

    def expose(self, light: Light) -> None:
        """The print, a cast over the whole picture, and the grain of a camera."""
        canvas, ink = self.canvas, self.person.print
        brightness = (canvas.colour @ LUMA)[..., None].clip(0, 1)
        printed = ink.shadows + (ink.lights - ink.shadows) * brightness
        canvas.colour = (canvas.colour * (1 - ink.strength) + printed * ink.strength).astype(np.float32)
        canvas.colour *= light.exposure * np.array([light.red, 1.0, light.blue], np.float32)
        canvas.colour += light.grain * self.rng.standard_normal(canvas.colour.shape, np.float32)
