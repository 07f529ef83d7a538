"""Images and their labels: folders, tables of file names, and hub data."""

import glob
import io
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import datasets
import numpy as np
import torch
from datasets import Dataset
from lightning.pytorch.utilities.seed import isolate_rng
from PIL import Image, ImageOps

from hydralight.data.classification import ClassificationData
from hydralight.data.datamodule import Batch, Purpose
from hydralight.data.inputs import looks_like_a_file
from hydralight.data.labels import ProblemType, encode_labels
from hydralight.data.roles import is_text
from hydralight.data.sources import load_splits, without_bars
from hydralight.errors import UserError, did_you_mean, first_line


def encode_images(
    rows: dict[str, list],
    indices: list[int],
    *,
    processor: Any,
    label_names: list[str] | None,
    problem_type: ProblemType,
) -> dict[str, list]:
    """Number the labels; images are decoded when a batch is made."""
    labels = encode_labels(rows["label"], label_names, problem_type, indices[0])
    size = len(indices)
    return {"labels": labels, "length": [1] * size, "too_long": [False] * size, "row": indices}


class ImageClassificationData(ClassificationData):
    """Data of image classification: a folder per class, a table of file names, or hub data.

    A batch holds `pixel_values` (batch, 3, height, width), as the image processor resizes and
    normalises them, and `labels` as in text classification.

    Args:
        metadata: A table with a row for each image of `path`, whose column of file names is the
            role `image`; folders' names are then no labels.
        image_dir: Where the files are that a table in `path` names; its own folder unless said.
        augmentation: Called with each training image (PIL, RGB), returns another; what it draws
            from the global random streams is a function of (seed, epoch, index).
        white: The brightest value of images with more than 8 bits, such as 4095 for 12; unless
            said, 65535 for integers, and for fractions 1, or 255 where they exceed it.
        kwargs: Those of `ClassificationData`.
    """

    roles = ("image", "label")
    text_roles = ()
    encode = staticmethod(encode_images)

    def __init__(
        self,
        *,
        metadata: str | None = None,
        image_dir: str | None = None,
        augmentation: Callable[[Image.Image], Image.Image] | None = None,
        white: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.metadata = metadata
        self.image_dir = image_dir
        self.augmentation = augmentation
        self.white = white

    def load(self, path: Any, **kwargs: Any) -> dict[str, Dataset]:
        """Read splits; join them with the table, if there is one; find the files."""
        name = str(self.columns.get("image", "image"))
        predicting = isinstance(path, Mapping) and "predict" in path
        if self.metadata is None or predicting:
            found = super().load(path, **kwargs)
            for split, rows in found.items():
                column = name if name in rows.column_names else "image"
                found[split] = located(rows, column, self.image_dir or folder_of(path, split))
            return found
        (table,) = load_splits(self.metadata, reader=self.reader).values()
        found = super().load(path, **{**kwargs, "reader": {}})
        return {split: joined(rows, table, name, self.metadata) for split, rows in found.items()}

    def checked(self, dataset: Dataset, where: str) -> Dataset:
        """Check that the files are there, and name the labels."""
        if not isinstance(dataset.features["image"], datasets.Image):
            raise UserError(f"{where}: the image is of no kind that can be read.")
        first = dataset[0]["image"]
        if first is None or first["bytes"] is None:  # files, then, and no images in the data set
            for row, image in enumerate(dataset["image"]):
                if image is None or not Path(image["path"]).is_file():
                    what = "is missing" if image is None else f"{image['path']} does not exist"
                    raise UserError(f"{where}, row {row + 1}: the image {what}.")
        return super().checked(dataset, where)

    def predict_from(self, source: str) -> None:
        """Take an image file, a folder or glob of them, or a table that names them."""
        path = Path(source).expanduser()
        Image.init()
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if _is_image(file)]
        elif any(sign in source for sign in "*?["):
            files = [Path(file) for file in sorted(glob.glob(source, recursive=True))]
        elif source == "-":
            files = [Path(line.strip()) for line in sys.stdin if line.strip()]
        elif looks_like_a_file(source) and not _is_image(path):
            super().predict_from(source)
            return
        else:
            files = [path] if path.exists() else []
        if not files:
            raise UserError(f"input={source}: there is no image there.")
        images = Dataset.from_dict({"image": [str(file) for file in files]})
        self.predict_rows = self.checked(located(images, "image", "."), "input")

    def kept_roles(self, purpose: Purpose) -> Sequence[str]:
        """Return the label; the image itself is kept beside what is cached."""
        return () if purpose == "train" else ("label",)

    def _encode(self, split: str, dataset: Dataset) -> Dataset:
        if "label" in dataset.column_names:
            encoded = super()._encode(split, dataset.remove_columns("image"))
        else:
            numbers = list(range(len(dataset)))
            encoded = Dataset.from_dict({"length": [1] * len(dataset), "row": numbers})
        images = dataset.select_columns("image")
        with without_bars():
            return datasets.concatenate_datasets([encoded, images], axis=1)

    def vary(self, row: dict[str, Any], rng: np.random.Generator, purpose: Purpose) -> None:
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
        row["pixel_values"] = self.processor(image, return_tensors="pt")["pixel_values"][0]

    def pad(self, rows: list[dict[str, Any]]) -> Batch:
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
    except (OSError, ValueError, SyntaxError) as error:
        name = image["path"] or "an image of the data"
        raise UserError(f"{name} cannot be read as an image: {first_line(error)}.") from error


def located(rows: Dataset, column: str, folder: str) -> Dataset:
    """Turn a column of file names, relative to a folder, into images; leave images encoded."""
    if column not in rows.column_names:
        return rows  # what is missing is said where columns are named
    if is_text(rows.features[column]):
        base = Path(folder).expanduser().absolute()
        paths = [None if name is None else str(base / name) for name in rows[column][:]]
        names = rows.column_names
        features = datasets.Features({column: datasets.Image(decode=False)})
        images = Dataset.from_dict({column: paths}, features=features)
        rows = datasets.concatenate_datasets([rows.remove_columns(column), images], axis=1)
        return rows.select_columns(names)
    if isinstance(rows.features[column], datasets.Image):
        return rows.cast_column(column, datasets.Image(decode=False))
    return rows


def joined(images: Dataset, table: Dataset, column: str, where: str) -> Dataset:
    """Put the columns of a table beside the images that it names by file name."""
    if column not in table.column_names:
        raise UserError(
            f"{where} has no column {column!r} with the images' file names"
            f"{did_you_mean(column, table.column_names)} (data.columns={{image: …}} names another; "
            f"there are: {', '.join(table.column_names)})."
        )
    images = images.select_columns("image").cast_column("image", datasets.Image(decode=False))
    numbers: dict[str, int] = {}
    for number, name in enumerate(table[column][:]):
        key = PurePath(str(name)).as_posix()
        if key in numbers:
            raise UserError(f"{where}, row {number + 1}: {name} is in row {numbers[key] + 1} too.")
        numbers[key] = number
    chosen: dict[int, str] = {}
    for path in (image["path"] for image in images["image"]):
        parts = PurePath(path).parts  # the table may name a file alone, or with folders above it
        keys = (PurePath(*parts[start:]).as_posix() for start in range(len(parts)))
        row = next((numbers[key] for key in keys if key in numbers), None)
        if row is None:
            raise UserError(f"{where} has no row for {path}.")
        if row in chosen:
            raise UserError(
                f"{where}, row {row + 1} stands for both {chosen[row]} and {path}: name files with "
                "their folders."
            )
        chosen[row] = path
    rows = table.select(list(chosen)).remove_columns(column)
    return datasets.concatenate_datasets([images.rename_column("image", column), rows], axis=1)


def folder_of(path: Any, split: str) -> str:
    """Return the folder of a table of file names."""
    if isinstance(path, Mapping):
        path = path.get(split, ".")
    first = path if isinstance(path, str) else next(iter(path))
    return str(Path(first).expanduser().parent)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in Image.registered_extensions()
