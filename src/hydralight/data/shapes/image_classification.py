"""Images and their labels."""

import io
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import datasets
import numpy as np
import torch
from annotated_types import Gt
from datasets import Dataset
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image, ImageOps

from hydralight.data.labels import Labelled, encode_labels
from hydralight.data.roles import Where
from hydralight.data.shape import Batch, Columns, Purpose, Row
from hydralight.errors import UserError, first_line

log = logging.getLogger(__name__)

FEW_PIXELS = 64  # of a side; below, a size is of a recipe for small images
LOOKED_AT = 16  # images, from all over the data


@dataclass(frozen=True, kw_only=True)
class ImageClassification(Labelled):
    """Images, decoded when a batch is made, and one label, several, or a number.

    A batch holds `pixel_values` (batch, 3, height, width), as the image processor resizes and
    normalises them, and `labels` as in text classification.

    Args:
        augmentation: Called with each training image (PIL, RGB), returns another; what it draws
            from the global random streams is a function of (seed, epoch, index).
        white: The brightest value of images with more than 8 bits, such as 4095 for 12; unless
            said, 65535 for integers, and for fractions 1, or 255 where they exceed it.
    """

    augmentation: Callable[[Image.Image], Image.Image] | None = None
    white: Annotated[float, Gt(0)] | None = None

    roles = ("image", "label")
    file_roles = ("image",)
    length_limit = None
    not_encoded = ("augmentation", "white")
    kept = ("label",)  # the image itself is beside what is cached

    def prepare(self, rows: Dataset, where: Where) -> Dataset:
        """Check that the files are there, and name the labels."""
        if not isinstance(rows.features["image"], datasets.Image):
            raise UserError(f"{where}: the image is of no kind that can be read.")
        first = rows[0]["image"]
        if first is None or first["bytes"] is None:  # files, then, and no images in the data set
            for row, image in enumerate(rows["image"]):
                if image is None or not Path(image["path"]).is_file():
                    what = "is missing" if image is None else f"{image['path']} does not exist"
                    raise UserError(f"{where}, row {row + 1}: the image {what}.")
        return super().prepare(rows, where)

    def compare(self, rows: Dataset, processor: Any) -> None:
        """Warn of images that are shrunk to a few pixels, as a recipe for small ones does it."""
        size = dict(getattr(processor, "size", None) or {})
        target = min([side for side in size.values() if side] or [FEW_PIXELS])
        if target >= FEW_PIXELS:  # what pretrained models see
            return
        picked = np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(int))
        images = [open_image(image, self.white) for image in rows.select(picked)["image"][:]]
        side = int(np.median([min(image.size) for image in images]))
        if side >= 2 * target:
            whole = min(224, side // target * target)
            log.warning(
                "the images, of about %d pixels a side, are shrunk to %d: "
                "'tokenizer.options.size={height: %d, width: %d}' model.config.image_size=%d "
                "leaves them %d (and a larger model.config.patch_size is quicker)",
                *(side, target, whole, whole, whole, whole),
            )

    def encode(
        self, rows: Columns, indices: list[int], processor: Any, purpose: Purpose
    ) -> Columns:
        """Number the labels."""
        columns: Columns = {"length": [1] * len(indices)}
        if "label" in rows:
            columns["labels"] = encode_labels(
                rows["label"], self.known, self.problem_type, indices[0]
            )
        return columns

    def size(self, rows: Dataset) -> np.ndarray:
        """Return 1 for each image."""
        return rows["length"][:][:, None]

    def vary(self, row: Row, rng: np.random.Generator, processor: Any, purpose: Purpose) -> None:
        """Decode, augment in training, and process the image; its path is kept."""
        image = open_image(row["image"], self.white)
        if purpose == "train" and self.augmentation is not None:
            with isolate_rng(include_cuda=False):
                seed = int(rng.integers(2**32))
                random.seed(seed)
                np.random.seed(seed)
                torch.manual_seed(seed)
                image = self.augmentation(image)
        row["image"] = row["image"]["path"]
        row["pixel_values"] = processor(image, return_tensors="pt")["pixel_values"][0]

    def picture(self, row: Row) -> Image.Image | None:
        """Return the image, where it is in the data and in no file of its own."""
        image = row["image"]
        if image["path"] and Path(image["path"]).is_file():
            return None
        return open_image(image, self.white)

    def pad(
        self,
        rows: Sequence[Row],
        processor: Any,
        pad_to_multiple_of: int | None = None,
        purpose: Purpose = "evaluate",
    ) -> Batch:
        """Stack images and labels."""
        batch = {"pixel_values": torch.stack([row["pixel_values"] for row in rows])}
        if "labels" in rows[0]:
            batch["labels"] = torch.tensor([row["labels"] for row in rows])
        return batch


def open_image(image: Mapping[str, Any], white: float | None = None) -> Image.Image:
    """Decode an image to 8-bit RGB, whatever it was: grayscale of 16 bits is scaled, not cut.

    Args:
        image: `path`, or `bytes`.
        white: The brightest value of an image with more than 8 bits.

    Raises:
        UserError: it cannot be decoded; the file is named.
    """
    try:
        source = image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])
        decoded: Image.Image = ImageOps.exif_transpose(Image.open(source))
        if decoded.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
            values: np.ndarray = np.asarray(decoded, dtype=np.float32)
            usual = 65535.0 if decoded.mode != "F" else 1.0 if values.max() <= 1 else 255.0
            values = (values * (255 / (white or usual))).clip(0, 255)
            decoded = Image.fromarray(values.round().astype(np.uint8))
        return decoded.convert("RGB")
    except Exception as error:  # each decoder has its own, and one is against too many pixels
        name = image["path"] or "an image of the data"
        raise UserError(f"{name} cannot be read as an image: {first_line(error)}.") from error
