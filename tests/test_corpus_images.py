"""A corpus of images: tar shards and tables of them, prepared with their files as they are."""

import pandas as pd
import pytest
import torch
from serving import serving
from test_corpus import small  # noqa: F401
from test_stores import shard, small_steps  # noqa: F401
from transformers import ViTImageProcessor

import hydralight
from hydralight.data.augmentation import RandomResizedCropAndFlip
from hydralight.data.batches import Batching
from hydralight.data.collate import EpochRows
from hydralight.data.corpus.corpus import Corpus
from hydralight.data.module import DataModule
from hydralight.data.shapes.image_classification import ImageClassification
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError

COLUMNS = {"image": "png", "label": "cls"}


def module(path, prepared=None, columns=COLUMNS, **own):
    corpus = Corpus(prepared=str(prepared), workers=0, **own) if prepared else None
    return DataModule(
        shape=ImageClassification(
            labels=["0", "1", "2"], augmentation=RandomResizedCropAndFlip(flip=0.5)
        ),
        source=Source(path={"train": str(path)}, columns=columns),
        splits=Splits(validation_fraction=0),
        tokenizer=lambda *_, **__: ViTImageProcessor(size={"height": 16, "width": 16}),
        corpus=corpus,
        batching=Batching(batch_size=4),
    )


def images_of(rows):
    return [(row["image"]["bytes"], row["labels"]) for row in (rows[i] for i in range(len(rows)))]


@pytest.fixture
def tars(tmp_path):
    """Two shards of 12 images of three classes."""
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(shard(range(12 * number, 12 * number + 12)))
    return tmp_path / "*.tar"


def test_images_are_kept_as_they_are_encoded(tars, tmp_path):
    """The same bytes and labels in the same order, and the same batches, augmented or not."""
    data, plain = module(tars, tmp_path / "shards"), module(tars)
    found = images_of(data.encoded("train"))
    assert found == images_of(plain.encoded("train"))
    assert [label for _, label in found] == [i % 3 for i in range(24)]
    assert len(data.encoded("train").shards) > 2
    for purpose in ("train", "evaluate"):
        own, other = (
            one.collate(
                EpochRows(one.encoded("train")).__getitems__([(1, i) for i in range(24)]), purpose
            )
            for one in (data, plain)
        )
        assert torch.equal(own["pixel_values"], other["pixel_values"])
        assert own["labels"].tolist() == other["labels"].tolist()
    assert len(list(data.train_dataloader())) == 6
    for path in tmp_path.glob("*.tar"):
        path.unlink()
    assert images_of(module(tars, tmp_path / "shards").encoded("train")) == found
    with pytest.raises(UserError, match=r"data\.min_chars and data\.max_chars are of texts"):
        module(tars, tmp_path / "other", min_chars=3).encoded("train")


def test_tables_that_name_images(tars, tmp_path):
    """Their files are read into the shards."""
    rows = module(tars).encoded("train")
    for number, (content, _) in enumerate(images_of(rows)):
        (tmp_path / f"{number}.png").write_bytes(content)
    names = [f"{number}.png" for number in range(24)]
    labels = [label for _, label in images_of(rows)]
    pd.DataFrame({"png": names, "cls": labels}).to_csv(tmp_path / "a.csv", index=False)
    data = module(tmp_path / "a.csv", tmp_path / "shards")
    assert images_of(data.encoded("train")) == images_of(rows)
    (tmp_path / "5.png").unlink()
    with pytest.raises(UserError, match=r"a\.csv.*, row 6: the image .*5\.png does not exist"):
        module(tmp_path / "a.csv", tmp_path / "other").encoded("train")


def test_equal_images_and_a_validation_split_by_their_hashes(tars, tmp_path):
    (tmp_path / "2.tar").write_bytes((tmp_path / "0.tar").read_bytes())
    once = images_of(module(tars, tmp_path / "once", deduplicate=True).encoded("train"))
    assert once == images_of(module(tars).encoded("train"))[:24]
    data = module(tars, tmp_path / "parted", validation_hash=0.4)
    train = {content for content, _ in images_of(data.encoded("train"))}
    validation = {content for content, _ in images_of(data.encoded("validation"))}
    assert train
    assert validation
    assert not train & validation
    assert train | validation == {content for content, _ in once}


@pytest.mark.thorough
def test_shards_at_a_url_train(tmp_path, recipe, quick):
    files = {f"/s/{n}.tar": shard(range(12 * n, 12 * n + 12)) for n in range(2)}
    files["/s/dev.tar"] = shard(range(6))
    with serving(files) as server:
        server.faults = ["slow", "cut", 503]
        own = [w for w in recipe("vit_cxr14") if not w.startswith(("data.path", "data.columns"))]
        run = hydralight.train(
            [
                *own,
                f"data.path={{train: '{server.url}/s/[0-9].tar', "
                f"validation: '{server.url}/s/dev.tar'}}",
                f"data.prepared={tmp_path}/shards",
                "data.columns={image: png, label: cls}",
                "data.problem_type=single_label_classification",
                'data.labels=["0", "1", "2"]',
                "optimized_metric=val/accuracy",
                "trainer.max_epochs=2",
            ]
        )
    assert server.faults == []
    assert run.metrics["last"]["val/loss"] > 0
    assert len(run.model.config.id2label) == 3
