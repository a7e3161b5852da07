"""Networks: images (B, 3, H, W) in [0, 1] -> features (B, C, h, w); and the supervised ones of the 2017 supplement."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .geometry import Cells, pixel_grid, sample

Padding = Literal["zeros", "reflect", "replicate"]
SupervisedName = Literal["supervised-smallnet", "supervised-smallnet-plus"]

Look = Callable[[Tensor], Tensor]

_MEAN = (0.5084, 0.4224, 0.3769)
_STD = (0.2599, 0.2371, 0.2323)


class Network(nn.Module):
    """A network that normalises its input and says which pixel a cell of its output describes.

    Args:
        body: images to features, and beside them score maps, if any.
        channels: of the features.
        vector_length: to which every feature vector is scaled; raw if absent.
    """

    cells: ClassVar[Cells]
    early: ClassVar[int] = 0  # modules of the body, from the first on, that yield details; 0 if there are none
    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, channels: int, vector_length: float | None = None) -> None:
        super().__init__()
        self.channels = channels
        self.vector_length = vector_length
        self.body = body
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) of ``images`` (B, 3, H, W) in [0, 1]; after them score maps of landmarks, if any."""
        return self._scaled(self.body(self._standardised(images)))

    def hypercolumns(self, images: Tensor) -> Tensor:
        """Features (B, C, h, w) of ``images`` (B, 3, H, W) in [0, 1], and after them details (B, D, h, w).

        Details are what an early layer of the same resolution has seen: little around a cell, but that exactly. What a
        place is, features tell; where precisely it lies, details tell better (hypercolumns: Hariharan et al., 2015).
        """
        if not self.early:
            found: Tensor = self(images)
            return found[:, : self.channels]
        assert isinstance(self.body, nn.Sequential)
        details = self.body[: self.early](self._standardised(images))
        features = self._scaled(self.body[self.early :](details))[:, : self.channels]
        return torch.cat([features, details], 1)

    def _standardised(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std

    def _scaled(self, found: Tensor) -> Tensor:
        """What the body finds, with features of the length wanted."""
        if self.vector_length is None:
            return found
        if found.shape[1] == self.channels:
            return F.normalize(found, dim=1) * self.vector_length
        features, beside = found[:, : self.channels], found[:, self.channels :]
        return torch.cat([F.normalize(features, dim=1) * self.vector_length, beside], 1)


def _check_channels(channels: int) -> None:
    if channels < 1:
        raise ValueError(f"a network needs at least one output channel, got {channels}")


class SmallNet(Network):
    """Six convolutions, one 2 x 2 max pooling after the first (2017, section 4.1; Dense3D and DVE).

    H x W -> H/2 x W/2. Pooling takes pixels 2i and 2i + 1 together: cell i describes pixel 2i + 0.5.

    Args:
        channels: of the last convolution.
        leak: slope of the ReLUs for negative values; 0.2 in Dense3D and DVE, 0 in the 2017 paper.
        activate_last: batch norm and ReLU after the last convolution too, as the 2017 paper has it.
        vector_length: see :class:`Network`.
        padding: what the convolutions see beyond the picture; zeros in the papers, by which the network can tell
            where the border is. ``reflect`` needs images of at least 10 x 10 pixels.
        landmarks: score maps of so many landmarks beside the features, from the same layers but for the last.
    """

    cells = Cells(stride=2, offset=0.5)
    early = 7  # up to the second convolution, which sees 14 x 14 pixels
    body: nn.Sequential

    def __init__(
        self,
        channels: int,
        *,
        leak: float = 0.2,
        activate_last: bool = False,
        vector_length: float | None = None,
        padding: Padding = "zeros",
        landmarks: int = 0,
    ) -> None:
        layers = _smallnet_layers(channels, leak=leak, activate_last=activate_last, padding=padding, poolings=1)
        if landmarks:
            layers[-1] = _Beside(layers[-1], landmarks)
        super().__init__(nn.Sequential(*layers), channels, vector_length)
        self.leak = leak
        self.padding = padding

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, C, H/2, W/2) of ``images`` (B, 3, H, W) in [0, 1].

        Raises:
            ValueError: if the images are smaller than what ``reflect`` has to mirror.
        """
        height, width = images.shape[-2:]
        if self.padding == "reflect" and min(height, width) < _SMALLEST_REFLECTED:
            raise ValueError(
                f"padding by reflection needs images of at least {_SMALLEST_REFLECTED} x {_SMALLEST_REFLECTED} pixels, "
                f"got {height} x {width}; choose replicate or zeros"
            )
        return super().forward(images)


_SMALLEST_REFLECTED = 10  # the third and fourth convolution reach 4 cells beyond the halved map


def _smallnet_layers(
    channels: int, *, leak: float, activate_last: bool, padding: Padding, poolings: int
) -> list[nn.Module]:
    """The layers of SmallNet, with 2 x 2 max pooling after each of the first ``poolings`` convolutions."""
    _check_channels(channels)
    widths = (3, 20, 48, 64, 80, 256, channels)
    kernels = (5, 5, 5, 3, 3, 1)
    dilations = (1, 1, 2, 4, 2, 1)
    layers: list[nn.Module] = []
    for i, (kernel, dilation) in enumerate(zip(kernels, dilations, strict=True)):
        reach = dilation * (kernel - 1) // 2
        layers.append(
            nn.Conv2d(widths[i], widths[i + 1], kernel, padding=reach, dilation=dilation, padding_mode=padding)
        )
        if i < 5 or activate_last:
            layers += [nn.BatchNorm2d(widths[i + 1]), nn.LeakyReLU(leak, inplace=True)]
        if i < poolings:
            layers.append(nn.MaxPool2d(2))
    return layers


class _Beside(nn.Module):
    """The last convolution, and beside it one to score maps of landmarks, with batch norm and ReLU as in 2017.

    Inputs -> features and, after them in the same tensor, score maps.
    """

    def __init__(self, features: nn.Module, landmarks: int) -> None:
        super().__init__()
        assert isinstance(features, nn.Conv2d)
        self.features = features
        self.scores = nn.Sequential(
            nn.Conv2d(features.in_channels, landmarks, 1), nn.BatchNorm2d(landmarks), nn.ReLU(inplace=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.features(x), self.scores(x)], 1)


class SupervisedSmallNet(Network):
    """SmallNet for labelled landmarks: the supervised baselines of 2017 (section 4.3; supplement, section 3).

    The architecture of the unsupervised landmarks (ReLU and batch norm after every convolution) with a fully
    connected layer to the coordinates. Images (B, 3, S, S) -> landmarks (B, K, 2) in normalised coordinates of the
    input, (x, y), the centres of its first and last pixels at -1 and +1.

    Args:
        landmarks: K.
        input_size: S, the side of the images: 80 for the crops of the main text, 64 for ``plus``.
        plus: pool after each of the first three convolutions (supplement; "SmallNet+" in DVE) instead of after
            the first and the last (main text). Either way 2 x 2, of stride 2.
        channels: of the last convolution; 51 like the unsupervised network of the same comparison, as the paper does
            not state it.
    """

    cells = Cells(stride=1, offset=0.0)  # of its input itself

    def __init__(self, landmarks: int, *, input_size: int, plus: bool = False, channels: int = 51) -> None:
        if landmarks < 1:
            raise ValueError(f"a supervised network needs at least one landmark, got {landmarks}")
        side = input_size // (8 if plus else 4)
        if side < 1:
            raise ValueError(f"images of {input_size} pixels leave nothing after the poolings")
        layers = _smallnet_layers(channels, leak=0.0, activate_last=True, padding="zeros", poolings=3 if plus else 1)
        if not plus:
            layers.append(nn.MaxPool2d(2))
        layers += [nn.Flatten(), nn.Linear(channels * side**2, 2 * landmarks), nn.Unflatten(1, (landmarks, 2))]
        super().__init__(nn.Sequential(*layers), landmarks)
        self.input_size = input_size

    def forward(self, images: Tensor) -> Tensor:
        """Landmarks (B, K, 2), normalised coordinates, of ``images`` (B, 3, S, S) in [0, 1].

        Raises:
            ValueError: if the images have another size than the network was made for.
        """
        height, width = images.shape[-2:]
        if (height, width) != (self.input_size, self.input_size):
            raise ValueError(
                f"the fully connected layer was made for images of {self.input_size} x {self.input_size} pixels, "
                f"got {height} x {width}"
            )
        return super().forward(images)


class SegmentationNet(SmallNet):
    """SmallNet that says what each pixel shows (2017, supplement, section 5): images to logits (B, classes, H, W).

    The last convolution becomes the classifier, without batch norm and ReLU: where one logit of a cell must rise, the
    others must be free to fall. The paper does not say how its maps of half the resolution meet the labels; here the
    logits are interpolated between the pixels that the cells describe.

    Args:
        classes: number of labels; 10 in the paper.
        leak: see :class:`SmallNet`.
        padding: see :class:`SmallNet`.
        freeze: the first three convolutions keep their weights, and their batch norm its statistics.
    """

    cells = Cells(stride=1, offset=0.0)

    def __init__(self, classes: int, *, leak: float = 0.0, padding: Padding = "zeros", freeze: bool = False) -> None:
        super().__init__(classes, leak=leak, padding=padding)
        self._frozen = freeze
        if freeze:
            _before(self.body, 3).requires_grad_(False).eval()

    @classmethod
    def from_smallnet(cls, network: SmallNet, classes: int, *, freeze: bool) -> Self:
        """A copy of a trained ``network``, on the CPU, with a fresh classifier in place of the last convolution.

        Args:
            network: may have been made for landmarks or for descriptors.
            classes: number of labels.
            freeze: the first three convolutions keep their weights, and their batch norm its statistics
                ("Pretrained" in the supplement's table 3); if not, everything is fine-tuned.
        """
        made = cls(classes, leak=network.leak, padding=network.padding, freeze=freeze)
        _before(made.body, 5).load_state_dict(_before(network.body, 5).state_dict())
        return made

    def train(self, mode: bool = True) -> Self:
        """As in torch, but what is frozen stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            _before(self.body, 3).eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of ``images`` (B, 3, H, W) in [0, 1]."""
        logits = super().forward(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # positions need more than half precision
        pixels = pixel_grid((images.shape[-2], images.shape[-1]), device=images.device)
        return sample(logits, SmallNet.cells.to_cells(pixels).expand(images.shape[0], -1, -1, -1))


def _before(body: nn.Sequential, convolution: int) -> nn.Sequential:
    """The layers, shared and not copied, that stand before a convolution; the first is 0."""
    layers = list(body)
    places = [i for i, layer in enumerate(layers) if isinstance(layer, nn.Conv2d | _Beside)]
    return nn.Sequential(*layers[: places[convolution]])


class Hourglass(Network):
    """One stack of the stacked-hourglass design (DVE, section 4). H x W -> H/2 x W/2.

    The 7 x 7 stem of stride 2 is centred on pixel 2i.
    """

    cells = Cells(stride=2, offset=0.0)
    early = 3  # the stem

    def __init__(self, channels: int, *, vector_length: float | None = None, landmarks: int = 0) -> None:
        _check_channels(channels)
        body = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            _Bottleneck(64, 128),
            _Bottleneck(128, 256),
            _Bottleneck(256, 256),
            _Pyramid(256, depth=4),
            *_bottlenecks(256),
            nn.Conv2d(256, 256, 1),
            nn.BatchNorm2d(256),
            nn.ReLU(inplace=True),
            nn.Conv2d(256, channels, 1),
        )
        if landmarks:
            body[-1] = _Beside(body[-1], landmarks)
        super().__init__(body, channels, vector_length)


class _Bottleneck(nn.Module):
    """Pre-activation residual bottleneck."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        layers: list[nn.Module] = []
        for kernel, a, b in ((1, inputs, middle), (3, middle, middle), (1, middle, outputs)):
            layers += [nn.BatchNorm2d(a), nn.ReLU(inplace=True), nn.Conv2d(a, b, kernel, padding=kernel // 2)]
        layers[1] = nn.ReLU()  # the first must not overwrite what the skip connection adds
        self.residual = nn.Sequential(*layers)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.skip(x) + self.residual(x)
        return out


class _Pyramid(nn.Module):
    """The hourglass: a detour at half the resolution, itself with such a detour, ``depth`` times."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.level = _bottlenecks(width)
        self.down = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), *_bottlenecks(width))
        self.inner = _Pyramid(width, depth - 1) if depth > 1 else _bottlenecks(width)
        self.up = _bottlenecks(width)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        below = F.interpolate(self.up(self.inner(self.down(x))), scale_factor=2, mode="nearest")
        out: Tensor = self.level(x) + below[..., :height, :width]  # an odd map was rounded up on the way down
        return out


def _bottlenecks(width: int, count: int = 4) -> nn.Sequential:
    return nn.Sequential(*(_Bottleneck(width, width) for _ in range(count)))


def look_twice(look: Look, images: Tensor, margin: int, stride: int) -> Tensor:
    """Maps (B, C, h, w) of whole ``images`` (B, 3, H, W), of which the part within the margin is looked at by itself.

    Args:
        look: images to maps: a network.
        images: of any size.
        margin: pixels on each side that training crops.
        stride: pixels between the cells of the maps.
    """
    whole, cells = look(images), margin // stride
    if not cells:
        return whole
    pixels = cells * stride
    inner = look(images[..., pixels:-pixels, pixels:-pixels])
    left, right = whole[..., cells:-cells, :cells], whole[..., cells:-cells, -cells:]
    return torch.cat([whole[..., :cells, :], torch.cat([left, inner, right], -1), whole[..., -cells:, :]], -2)


def build_network(
    name: str,
    channels: int,
    *,
    vector_length: float | None = None,
    sparse: bool = False,
    padding: Padding = "zeros",
    leak: float | None = None,
    landmarks: int = 0,
) -> Network:
    """A network by name: ``smallnet`` or ``hourglass``.

    Args:
        name: of the network.
        channels: of its features, or the number of landmarks.
        vector_length: to which every feature vector is scaled; raw if absent.
        sparse: SmallNet as in the 2017 paper, plain ReLUs and batch norm + ReLU after every convolution.
        padding: of SmallNet's convolutions; the hourglass knows zeros alone.
        leak: slope of SmallNet's ReLUs for negative values, in place of that of its paper.
        landmarks: whose score maps are found beside the features.

    Raises:
        ValueError: if there is no network of that name, or not with that padding.
    """
    if name == "smallnet":
        slope = leak if leak is not None else 0.0 if sparse else 0.2
        return SmallNet(
            channels,
            leak=slope,
            activate_last=sparse,
            vector_length=vector_length,
            padding=padding,
            landmarks=landmarks,
        )
    if name == "hourglass":
        if padding != "zeros":
            raise ValueError(f"the hourglass pads with zeros; padding {padding!r} is for smallnet")
        return Hourglass(channels, vector_length=vector_length, landmarks=landmarks)
    raise ValueError(f"unknown network {name!r}: choose smallnet or hourglass")


def build_supervised(name: str, landmarks: int, *, input_size: int) -> SupervisedSmallNet:
    """A supervised baseline by name: ``supervised-smallnet`` or ``supervised-smallnet-plus``.

    Args:
        name: of the network.
        landmarks: number of labelled landmarks.
        input_size: side of the images.

    Raises:
        ValueError: if there is no baseline of that name.
    """
    if name not in get_args(SupervisedName):
        raise ValueError(f"unknown network {name!r}: choose {' or '.join(get_args(SupervisedName))}")
    return SupervisedSmallNet(landmarks, input_size=input_size, plus=name == "supervised-smallnet-plus")
