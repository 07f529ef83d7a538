"""Choices and images; and what all shapes have in common."""

import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from shaping import batch_of
from standins import tokenizer

from hydralight.data.augmentation import RandomResizedCropAndFlip
from hydralight.data.columns import rename_roles
from hydralight.data.roles import Where
from hydralight.data.shapes.image_classification import ImageClassification, open_image
from hydralight.data.shapes.multiple_choice import MultipleChoice
from hydralight.errors import UserError


def test_choices():
    table = Dataset.from_dict(
        {
            "sent1": ["The storm came.", "The river ran."],
            "sent2": ["Then", "It"],
            "e0": ["two people left", "saw the tower"],
            "e1": ["the school", "was three miles long on that day"],
            "e2": ["all", "went"],
            "label": ["2", "0"],
        }
    )
    columns = {"context": "sent1", "question": "sent2", "endings": ["e0", "e1", "e2"]}
    shape, where = MultipleChoice(max_length=64), Where("x", columns)
    rows = shape.prepare(rename_roles(table, shape.roles, where, shape.optional_roles), where)
    assert rows[1]["endings"] == ["saw the tower", "was three miles long on that day", "went"]
    encoded = shape.encode(rows[:], [0, 1], tokenizer(), "evaluate")
    batch = batch_of(shape, encoded, tokenizer())
    assert batch["labels"].tolist() == [2, 0]
    assert batch["input_ids"].shape == (2, 3, max(encoded["length"]))
    for row, (context, opening) in enumerate(
        [("The storm came.", "Then"), ("The river ran.", "It")]
    ):
        for place, ending in enumerate(rows[row]["endings"]):
            expected = tokenizer()(context, f"{opening} {ending}")["input_ids"]
            there = batch["attention_mask"][row, place].bool()
            assert batch["input_ids"][row, place][there].tolist() == expected


def test_an_empty_opening_is_no_word():
    rows = {"context": ["The storm."], "question": [None], "endings": [["left", "came"]]}
    encoded = MultipleChoice().encode(rows, [0], tokenizer(), "evaluate")
    assert encoded["input_ids"] == [
        [tokenizer()("The storm.", ending)["input_ids"] for ending in ("left", "came")]
    ]


def test_rows_with_their_own_number_of_endings():
    rows = {
        "context": ["a", "b"],
        "endings": [["two trains", "three"], ["four", "five", "six"]],
        "ending_labels": [["A", "B"], ["1", "2", "3"]],
        "label": ["B", "3"],
    }
    shape = MultipleChoice()
    table = shape.prepare(Dataset.from_dict(rows), Where("x"))
    encoded = shape.encode(table[:], [0, 1], tokenizer(), "evaluate")
    batch = batch_of(shape, encoded, tokenizer())
    assert batch["input_ids"].shape[:2] == (2, 3)
    assert batch["choices"].tolist() == [2, 3]
    assert batch["input_ids"][0, 2].tolist() == batch["input_ids"][0, 0].tolist()
    sizes = shape.size(Dataset.from_dict(encoded).with_format("numpy"))
    assert sizes.tolist() == [[3 * length] for length in encoded["length"]]


def test_choices_refused():
    rows = {"context": ["a", "b"], "endings": [["x", "y"], ["x", "y", "z"]], "label": ["0", "2"]}
    with pytest.raises(UserError, match="x, row 2: there are 3 endings, and 2 in most"):
        MultipleChoice().prepare(Dataset.from_dict(rows), Where("x"))
    rows["label"] = ["2", "2"]
    with pytest.raises(UserError, match="row 1: the label '2' is no number of an ending, 0 to 1"):
        MultipleChoice().encode(rows, [0, 1], tokenizer(), "train")


def sixteen_bits():
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    expected = np.repeat((values / 257).round()[..., None], 3, axis=2)
    return Image.fromarray(values), expected


def palette():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return image, [[[255, 0, 0], [0, 0, 255]]]


def transparent():
    image = Image.new("RGBA", (2, 1), (10, 20, 30, 0))
    image.putpixel((1, 0), (40, 50, 60, 255))
    return image, [[[10, 20, 30], [40, 50, 60]]]


def one_bit():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    return image, [[[0, 0, 0], [255, 255, 255]]]


@pytest.mark.parametrize("made", [sixteen_bits, palette, transparent, one_bit])
def test_images_become_rgb(tmp_path, made):
    image, expected = made()
    image.save(tmp_path / "a.png")
    for source in (
        {"path": str(tmp_path / "a.png"), "bytes": None},
        {"path": None, "bytes": (tmp_path / "a.png").read_bytes()},
    ):
        opened = open_image(source)
        assert opened.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(opened), expected)


@pytest.mark.parametrize(("white", "expected"), [(None, [0, 16]), (4095.0, [0, 255])])
def test_what_is_white_may_be_said(tmp_path, white, expected):
    """Twelve bits of sixteen, as of a camera, are dark unless it is."""
    Image.fromarray(np.array([[0, 4095]], dtype=np.uint16)).save(tmp_path / "a.png")
    image = {"path": str(tmp_path / "a.png"), "bytes": None}

    def processor(image, return_tensors):
        return {"pixel_values": torch.tensor(np.asarray(image))[None]}

    encoded = {"image": [image], "labels": [0]}
    batch = batch_of(ImageClassification(white=white), encoded, processor, "evaluate")
    assert batch["pixel_values"][0, 0, :, 0].tolist() == expected


@pytest.mark.parametrize("kept", [0, 20, 60])
def test_broken_images_are_named(tmp_path, kept):
    path = tmp_path / "broken.png"
    sixteen_bits()[0].save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"broken\.png cannot be read as an image"):
        open_image({"path": str(path), "bytes": None})


def from_all_streams(image):
    """Change an image by draws from each of the global streams."""
    changed = RandomResizedCropAndFlip()(image)
    shift = 255 * np.array([random.random(), np.random.random(), float(torch.rand(()))])
    return Image.fromarray(np.asarray(changed) + shift.astype(np.uint8))


def test_augmentation_is_a_function_of_seed_epoch_and_index(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")

    def processor(image, return_tensors):
        return {"pixel_values": torch.tensor(np.asarray(image))[None]}

    def batch(purpose="train", epoch=0, seed=1):
        shape = ImageClassification(augmentation=from_all_streams)
        image = {"path": str(tmp_path / "a.png"), "bytes": None}
        encoded = {"image": [image, image], "labels": [0, 1]}
        return batch_of(shape, encoded, processor, purpose, epoch, seed)["pixel_values"]

    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    first = batch()
    assert states == (
        *(random.getstate(), np.random.get_state()[1].tolist()),
        torch.get_rng_state().tolist(),
    )
    random.random(), np.random.random(), torch.rand(1)
    assert torch.equal(batch(), first)
    for other in (batch(epoch=1), batch(seed=2), first.flip(0)):
        assert all((a != b).any() for a, b in zip(other, first, strict=True))
    np.testing.assert_array_equal(batch("evaluate"), [pixels, pixels])
