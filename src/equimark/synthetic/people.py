"""Who is painted: the colours, haircuts, beards and glasses of a person, all picked at random."""

from dataclasses import dataclass

import numpy as np

from equimark.synthetic.anatomy import Shape, drawn
from equimark.synthetic.canvas import Floats


def palette(*colours: str) -> Floats:
    """Hexadecimal colours -> (n, 3) in [0, 1]."""
    return np.array([list(bytes.fromhex(colour)) for colour in colours]) / 255


SKIN_TONES = palette("f6d7c3", "efc6a8", "e3b18c", "d39a72", "c08457", "a0683f", "7d4d2e", "573421")
HAIR_TONES = palette(
    "15110f",
    "2a1c14",
    "4a2e1c",
    "6e4526",
    "94602f",
    "c39a5a",
    "e2c88f",
    "8a3a1c",
    "8d8a88",
    "dad7d2",
    "35445f",
    "7c3552",
)
HAIR_ODDS = np.array([5, 5, 5, 4, 3, 3, 2, 2, 2, 2, 0.5, 0.5]) / 34
EYE_TONES = palette("3a2314", "5b3a1d", "6f6a35", "4c7088", "7d96a3", "53705a")
LIP_TONES = palette("b5584f", "a23b46", "c67a70", "8c3a3a", "b8435f", "96503f")
FRAME_TONES = palette("17161a", "4a2f1e", "8c7443", "7b2430", "28405e", "b9b9bd")


@dataclass(frozen=True)
class HairStyle:
    """The outline of a haircut; lengths in hundredths of the frame, heights in crowns over the eyes."""

    volume: float  # over the skull
    sides: float  # beside the ears
    length: float  # how far below the eyes it hangs beside the face
    hairline: tuple[float, ...]  # height at 7 places from the left temple to the right one
    curl: float = 0.0  # waviness of the outline
    bun: float = 0.0  # radius of a knot on top


HAIR_STYLES = (
    HairStyle(0.5, 0.3, 0, (0.40, 0.66, 0.74, 0.75, 0.74, 0.66, 0.40)),  # cropped
    HairStyle(0.3, 1.0, 0, (0.36, 0.64, 0.97, 1.00, 0.97, 0.64, 0.36)),  # receding
    HairStyle(4.5, 1.5, 0, (0.36, 0.58, 0.70, 0.73, 0.76, 0.64, 0.36)),  # short
    HairStyle(6.5, 2.0, 0, (0.30, 0.44, 0.50, 0.62, 0.78, 0.66, 0.34)),  # swept to the left
    HairStyle(6.5, 2.0, 0, (0.34, 0.66, 0.80, 0.62, 0.50, 0.42, 0.30)),  # swept to the right
    HairStyle(5.0, 3.5, 20, (0.10, 0.40, 0.43, 0.45, 0.43, 0.40, 0.10)),  # bob with a fringe
    HairStyle(4.0, 4.0, 70, (0.00, 0.42, 0.72, 0.86, 0.72, 0.42, 0.00)),  # long, parted in the middle
    HairStyle(5.0, 6.0, 62, (0.05, 0.34, 0.46, 0.66, 0.82, 0.56, 0.05), 1.6),  # long and wavy, parted at a side
    HairStyle(5.0, 5.0, 74, (0.05, 0.37, 0.41, 0.42, 0.41, 0.37, 0.05)),  # long with a fringe
    HairStyle(9.5, 9.0, 16, (0.28, 0.56, 0.66, 0.69, 0.66, 0.56, 0.28), 1.5),  # curly
    HairStyle(2.5, 1.0, 0, (0.34, 0.62, 0.78, 0.80, 0.78, 0.62, 0.34), 0.0, 8.0),  # knotted
)
BALD = HairStyle(0.0, 0.0, 0, ())
BALD_ODDS = 0.08
TWO_INK_ODDS = 0.55
NEGATIVE_ODDS = 0.4  # of those


@dataclass(frozen=True)
class Glasses:
    """A pair of spectacles; lengths in eye widths."""

    colour: Floats
    rim: float  # hundredths of the frame
    radius: tuple[float, float]
    power: float  # of the lenses' superellipse
    lens: float  # opacity: dark glasses hide the eyes


@dataclass(frozen=True)
class Beard:
    """Opacities of the hair on the face."""

    cheeks: float = 0.0
    chin: float = 0.0
    moustache: float = 0.0


BEARDS = (
    Beard(0.3, 0.3, 0.3),
    Beard(0.85, 0.9, 0.85),
    Beard(0.0, 0.9, 0.8),
    Beard(0.0, 0.0, 0.9),
    Beard(0.55, 0.6, 0.5),
)


@dataclass(frozen=True)
class Print:
    """How a person's portraits are printed: in full colour, or more or less in two inks.

    The darker ink may stand for light: then a dark eye in a pale face becomes a pale eye in a dark one. Parts of
    different people are alike in what they are, not in how they look.
    """

    shadows: Floats  # (3,) colour that stands for black
    lights: Floats  # (3,) colour that stands for white
    strength: float  # 0: full colour, 1: the two inks alone


@dataclass(frozen=True)
class Identity:
    """One person: shape, colours, what is worn, and how the portraits are printed."""

    shape: Shape
    skin: Floats
    hair: Floats
    brows: Floats
    iris: Floats
    lips: Floats
    clothes: Floats  # (2, 3): plain, and its stripes
    style: HairStyle
    beard: Beard
    glasses: Glasses | None
    freckles: Floats  # (n, 2) in the head's axes
    texture: int  # seed of the strands of hair
    print: Print


def draw_identity(rng: np.random.Generator) -> Identity:
    """A person picked at random."""
    skin = _between(SKIN_TONES, rng) * rng.uniform(0.95, 1.04, 3)
    hair = rng.choice(HAIR_TONES, p=HAIR_ODDS) * rng.uniform(0.8, 1.2)
    lips = 0.5 * skin * [0.95, 0.72, 0.70] + 0.5 * rng.choice(LIP_TONES) * (0.5 + 0.6 * skin.mean())
    style = BALD if rng.random() < BALD_ODDS else HAIR_STYLES[rng.integers(len(HAIR_STYLES))]
    beard = BEARDS[rng.integers(len(BEARDS))] if style.length < 10 and rng.random() < 0.42 else Beard()
    return Identity(
        shape=drawn(Shape, rng),
        skin=skin,
        hair=hair,
        brows=0.65 * hair * 0.7 + 0.35 * skin * 0.3,
        iris=rng.choice(EYE_TONES),
        lips=lips,
        clothes=rng.uniform(0.08, 0.92, (2, 3)),
        style=style,
        beard=beard,
        glasses=_draw_glasses(rng) if rng.random() < 0.27 else None,
        freckles=rng.uniform([-17, 0], [17, 18], (rng.choice([0, 1, 2, 14], p=[0.5, 0.2, 0.15, 0.15]), 2)),
        texture=int(rng.integers(2**31)),
        print=_draw_print(rng),
    )


def _between(colours: Floats, rng: np.random.Generator) -> Floats:
    """A colour somewhere along a palette."""
    place = rng.uniform(0, len(colours) - 1)
    return np.array([np.interp(place, np.arange(len(colours)), channel) for channel in colours.T])


def _draw_glasses(rng: np.random.Generator) -> Glasses:
    return Glasses(
        colour=rng.choice(FRAME_TONES),
        rim=rng.uniform(0.8, 1.9),
        radius=(rng.uniform(1.45, 1.75), rng.uniform(1.0, 1.5)),
        power=rng.uniform(2.0, 4.5),
        lens=rng.choice([0.06, 0.12, 0.3, 0.9]),
    )


def _draw_print(rng: np.random.Generator) -> Print:
    strength = rng.uniform(0.6, 1.0) if rng.random() < TWO_INK_ODDS else 0.0
    dark, pale = rng.uniform(0.0, 0.4, 3), rng.uniform(0.6, 1.0, 3)
    inks = (pale, dark) if rng.random() < NEGATIVE_ODDS else (dark, pale)
    return Print(*inks, strength)
