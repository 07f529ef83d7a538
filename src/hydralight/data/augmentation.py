"""Random changes of training images."""

import math
from typing import Annotated

import torch
from annotated_types import Gt, Interval
from PIL import Image

from hydralight.config.ranges import Fraction

Share = Annotated[float, Interval(gt=0, le=1)]
Ratio = Annotated[float, Gt(0)]


class RandomResizedCropAndFlip:
    """Cut out a random part, bring it back to the image's size, and perhaps mirror it.

    The usual augmentation for ImageNet (Szegedy et al., 2015), drawn from torch's global stream.

    Args:
        scale: Least and greatest area of the part.
        ratio: Least and greatest of its width over its height, both relative to the image's.
        flip: Probability of mirroring left to right.
    """

    def __init__(
        self,
        scale: tuple[Share, Share] = (0.5, 1.0),
        ratio: tuple[Ratio, Ratio] = (0.75, 4 / 3),
        flip: Fraction = 0.5,
    ) -> None:
        self.scale = scale
        self.ratio = ratio
        self.flip = flip

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the changed image, of the same size."""
        area, ratio, x, y, flip = torch.rand(5).tolist()
        area = self.scale[0] + area * (self.scale[1] - self.scale[0])
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = math.exp(low + ratio * (high - low))
        width = image.width * min(1.0, math.sqrt(area * ratio))
        height = image.height * min(1.0, math.sqrt(area / ratio))
        left, top = x * (image.width - width), y * (image.height - height)
        box = (left, top, left + width, top + height)
        changed = image.resize(image.size, Image.Resampling.BILINEAR, box=box)
        if flip < self.flip:
            changed = changed.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return changed
