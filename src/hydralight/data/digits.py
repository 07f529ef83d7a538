"""Handwritten digits that come with scikit-learn: real images, with no download."""

import io
from typing import Any

import datasets
import numpy as np
from datasets import Dataset
from PIL import Image
from sklearn.datasets import load_digits

from hydralight.data.image_classification import ImageClassificationData


class DigitsData(ImageClassificationData):
    """The 1,797 digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998) in ten classes.

    Args:
        kwargs: Those of `ImageClassificationData`; fractions part the data.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"stratify_by": "label", **kwargs})

    def read_sources(self) -> dict[str, Dataset]:
        """Return the digits as images; splits are cut out of them."""
        digits = load_digits()
        rows = {
            "image": [{"bytes": png(pixels), "path": None} for pixels in digits.images],
            "label": [str(label) for label in digits.target],
        }
        image = datasets.Image(decode=False)
        features = datasets.Features({"image": image, "label": datasets.Value("string")})
        return {"train": Dataset.from_dict(rows, features=features)}


def png(pixels: np.ndarray) -> bytes:
    """Encode an image of values from 0 to 16."""
    buffer = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
