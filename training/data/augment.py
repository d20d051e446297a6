"""Variation of training images: random crop, flip, automatic augmentation; then, per batch, mixup or cutmix.

Every draw follows from numbers given by the caller, so a resumed run repeats exactly what an uninterrupted one does.
"""

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from training.data.cache import Pixels
from training.recipe import Augment

_POLICIES = {"trivial": v2.TrivialAugmentWide, "rand": v2.RandAugment}
GREY = 124  # of an erased rectangle: zero for the network, visionserve.network.MEAN
CUTMIX_ALPHA = 1.0  # rectangles of every size, as in the paper
MIXUP_ALPHA = 0.2  # mostly one image with a veil of the other
SHRUNK = 1 / 3  # of the side: the least that an image may have had before it was enlarged
ASPECT = 4 / 3  # random crops are at most this much wider or taller than square


class Augmentation:
    """One image (H, W, 3) uint8 -> a varied (size, size, 3) uint8."""

    def __init__(self, settings: Augment) -> None:
        self._settings = settings
        self._jitter = v2.ColorJitter(*settings.colours) if any(settings.colours) else None
        self._perspective = v2.RandomPerspective(settings.perspective, p=1.0)
        self._erase = v2.RandomErasing(p=1.0, value=GREY)
        self._policy = _POLICIES[settings.policy]() if settings.policy in _POLICIES else None

    def __call__(self, image: Pixels, size: int, seed: int) -> Tensor:
        """Return the variation that belongs to ``seed``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            top, left, height, width = random_box(image.shape[0], image.shape[1], self._settings.min_area)
            piece = torch.from_numpy(image[top : top + height, left : left + width].copy())
            planes = functional.resize(piece.permute(2, 0, 1), [size, size], antialias=True)  # (3, size, size)
            if _chance(self._settings.flip):
                planes = functional.horizontal_flip(planes)
            planes = self._degraded(self._moved(planes))
            varied: Tensor = planes.permute(1, 2, 0).contiguous()
            if self._policy is not None and _chance(self._settings.policy_probability):
                augmented: Image.Image = self._policy(Image.fromarray(varied.numpy()))  # 3 times faster than on tensors
                varied = torch.from_numpy(np.array(augmented))
            if self._settings.erase and _chance(self._settings.erase):
                varied = self._erase(varied.permute(2, 0, 1)).permute(1, 2, 0).contiguous()
            return varied

    def _moved(self, planes: Tensor) -> Tensor:
        """Return (3, S, S) uint8 seen from elsewhere: upside down, from aside, shifted, turned."""
        settings = self._settings
        if settings.flip_vertical and _chance(settings.flip_vertical):
            planes = functional.vertical_flip(planes)
        if settings.perspective and _chance(settings.perspective_probability):
            planes = self._perspective(planes)
        if settings.translate:
            largest = settings.translate * planes.shape[-1]
            shift = [round(float(torch.empty(()).uniform_(-largest, largest))) for _ in range(2)]
            planes = functional.affine(planes, 0.0, shift, 1.0, [0.0, 0.0])
        if settings.rotate:
            angle = float(torch.empty(()).uniform_(-settings.rotate, settings.rotate))
            planes = _turned(planes, angle)
        return planes

    def _degraded(self, planes: Tensor) -> Tensor:
        """Return (3, S, S) uint8 as other cameras, other light and the web would have left it."""
        settings = self._settings
        if self._jitter is not None and _chance(settings.colour_probability):
            planes = self._jitter(planes)
        if settings.grey and _chance(settings.grey):
            planes = functional.rgb_to_grayscale(planes, num_output_channels=3)
        if settings.shrink and _chance(settings.shrink):
            size = planes.shape[-1]
            small = int(size * float(torch.empty(()).uniform_(SHRUNK, 0.8)))
            planes = functional.resize(functional.resize(planes, [small, small], antialias=True), [size, size])
        if settings.blur and _chance(settings.blur):
            planes = functional.gaussian_blur(planes, [5, 5], [float(torch.empty(()).uniform_(0.3, 1.5))])
        if settings.compress and _chance(settings.compress):
            planes = _stored(planes, int(torch.randint(25, 81, ())))
        return planes


def _turned(planes: Tensor, angle: float) -> Tensor:
    """Return a square image turned by so many degrees, enlarged until no corner is empty."""
    radians = math.radians(abs(angle))
    scale = math.cos(radians) + math.sin(radians)
    turned: Tensor = functional.affine(planes, angle, [0, 0], scale, [0.0, 0.0], functional.InterpolationMode.BILINEAR)
    return turned


def _stored(planes: Tensor, quality: int) -> Tensor:
    """Return (3, S, S) uint8 as it comes back from a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(planes.permute(1, 2, 0).contiguous().numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


def random_box(height: int, width: int, min_area: float) -> tuple[int, int, int, int]:
    """Return (top, left, height, width) of a random crop that keeps at least ``min_area`` where its shape allows it."""
    area = float(torch.empty(()).uniform_(min_area, 1.0)) * height * width
    ratio = math.exp(float(torch.empty(()).uniform_(-math.log(ASPECT), math.log(ASPECT))))
    tall = max(1, min(height, round(math.sqrt(area / ratio))))
    wide = max(1, min(width, round(math.sqrt(area * ratio))))
    top = int(torch.randint(height - tall + 1, ()))
    left = int(torch.randint(width - wide + 1, ()))
    return top, left, tall, wide


@dataclass(frozen=True)
class Blend:
    """A batch of which every item may be two: ``share`` of its own label, the rest of the label of ``partner``.

    Neighbours are each other's partners. The batch comes shuffled, so the pairs are random; and a batch that several
    processes share, an even number each, is blended just as in one process.
    """

    images: Tensor
    partner: Tensor
    share: float


def blend(images: Tensor, settings: Augment, seed: int) -> Blend:
    """Mix (B, 3, S, S) float images with each other, or not, as ``seed`` decides."""
    rng = np.random.default_rng(seed)
    partner = _neighbours(len(images)).to(images.device)
    choice = rng.random()
    if choice < settings.mixup:
        share = float(rng.beta(MIXUP_ALPHA, MIXUP_ALPHA))
        return Blend(images.lerp(images[partner], 1 - share), partner, share)
    if choice < settings.mixup + settings.cutmix:
        return _cutmix(images, partner, rng)
    return Blend(images, partner, 1.0)


def _neighbours(count: int) -> Tensor:
    """Return 1, 0, 3, 2, ...; the last of an odd number stays alone."""
    return (torch.arange(count) ^ 1).clamp(max=count - 1)


def _cutmix(images: Tensor, partner: Tensor, rng: np.random.Generator) -> Blend:
    height, width = images.shape[2:]
    side = math.sqrt(1 - rng.beta(CUTMIX_ALPHA, CUTMIX_ALPHA))
    row, column = rng.integers(height), rng.integers(width)
    top, bottom = (int(np.clip(row + sign * side * height / 2, 0, height)) for sign in (-1, 1))
    left, right = (int(np.clip(column + sign * side * width / 2, 0, width)) for sign in (-1, 1))
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return Blend(mixed, partner, 1 - (bottom - top) * (right - left) / (height * width))


def _chance(probability: float) -> bool:
    return float(torch.rand(())) < probability
