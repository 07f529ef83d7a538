"""Handwritten digits that come with scikit-learn: real images, with no download."""

import io

import datasets
import numpy as np
from datasets import Dataset
from PIL import Image
from sklearn.datasets import load_digits


def digits() -> dict[str, Dataset]:
    """Return the 1,797 digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998) in ten classes.

    They are all in `train`; fractions part them.
    """
    read = load_digits()
    rows = {
        "image": [{"bytes": png(pixels), "path": None} for pixels in read.images],
        "label": [str(label) for label in read.target],
    }
    image = datasets.Image(decode=False)
    features = datasets.Features({"image": image, "label": datasets.Value("string")})
    return {"train": Dataset.from_dict(rows, features=features)}


def png(pixels: np.ndarray) -> bytes:
    """Encode an image of values from 0 to 16."""
    buffer = io.BytesIO()
    Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()
