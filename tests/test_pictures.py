"""Pictures of a run, the images among its samples, and what small images are told."""

import io
import json
import logging

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import hydralight
from hydralight.curves import draw_curves, panels_of
from hydralight.data.digits import digits
from hydralight.data.spread import spread

pytestmark = pytest.mark.draws
LABELS = [f"finding {number}" for number in range(15)]


def table(*names, steps=(10, 20, 30)):
    values = {name: [(i + 1) / 30 * step for step in steps] for i, name in enumerate(names)}
    return pd.DataFrame({"step": steps, **values})


def test_panels_have_lines():
    """After a test and a resume there are columns of the test split, and empty ones."""
    rows = table("train/loss", "val/loss", "val/f1", "test/loss", "test/f1")
    rows["val/accuracy"] = float("nan")
    rows.loc[:1, ["test/loss", "test/f1"]] = float("nan")
    assert panels_of(rows) == {"loss": ["train/loss", "val/loss"], "val/f1": ["val/f1"]}


def test_labels_share_a_panel_with_their_mean_first():
    names = [f"val/f1/{label}" for label in LABELS]
    rows = table("val/f1_micro", *names, "val/f1_macro")
    assert panels_of(rows) == {
        "val/f1_micro": ["val/f1_micro"],
        "val/f1/by label": ["val/f1_macro", *names],
    }


@pytest.mark.parametrize("number", [15, 24])
def test_many_labels_are_told_apart(number, tmp_path, monkeypatch):
    """As drawn: a colour each, the same in all panels, the mean above, no legend over a line."""
    labels = [f"finding {n}" for n in range(number)]
    rows = table("val/auroc", *(f"val/{m}/{x}" for m in ("f1", "auroc") for x in labels))
    rows["val/auroc/finding 0"] = float("nan")
    rows.to_csv(tmp_path / "metrics.csv", index=False)
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda s, *a, **k: (drawn.append(s), save(s, *a, **k)))
    assert draw_curves(tmp_path).read_bytes().startswith(b"\x89PNG")
    f1, auroc = drawn[0].axes
    lines = {axes: {line.get_label(): line for line in axes.get_lines()} for axes in (f1, auroc)}
    colours = {name: line.get_color() for name, line in lines[f1].items()}
    assert list(colours) == labels
    assert len(set(colours.values())) == number
    mean = lines[auroc].pop("val/auroc (mean)")
    assert {n: line.get_color() for n, line in lines[auroc].items()} == {
        n: colours[n] for n in labels[1:]
    }
    assert all(mean.get_zorder() > line.get_zorder() for line in lines[auroc].values())
    for axes in (f1, auroc):
        legend, box = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert legend.x0 >= box.x1
        others = [other for other in drawn[0].axes if other is not axes]
        assert not any(legend.overlaps(other.get_window_extent()) for other in others)
        assert legend.x1 <= drawn[0].bbox.x1
    assert isinstance(f1, Axes)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["$50", "$x^$", "_a"], [r"\$50", r"\$x^\$", " _a"]),
        ([x * 90 for x in "abcdef"], [f"{x * 11}…{x * 10}" for x in "abcdef"]),
        ([str(i) for i in range(40)], [str(i) for i in range(19)]),
    ],
)
def test_any_label_may_be_named(labels, said, tmp_path, monkeypatch):
    """A label of signs, long ones, and more of them than there is room to name."""
    rows = table("train/loss", "val/f1_macro", *(f"val/f1/{label}" for label in labels))
    rows.to_csv(tmp_path / "metrics.csv", index=False)
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda s, *a, **k: (drawn.append(s), save(s, *a, **k)))
    assert draw_curves(tmp_path)
    (figure,) = drawn
    legend, box = figure.axes[1].get_legend(), figure.axes[0].get_window_extent()
    assert [text.get_text() for text in legend.get_texts()] == ["val/f1_macro (mean)", *said]
    assert legend.get_title().get_text() == ("21 more: metrics.csv" if len(labels) == 40 else "")
    extent = legend.get_window_extent()
    assert extent.x0 > box.x1
    assert extent.x1 <= figure.bbox.x1
    assert extent.y0 >= 0


def test_samples_are_spread_over_classes():
    sorted_ = Dataset.from_dict({"labels": [0] * 5 + [1] * 5 + [2] * 5})
    assert spread(sorted_, 3) == [0, 5, 10]
    assert spread(sorted_, 5) == [0, 1, 5, 6, 10]
    assert spread(sorted_, 99) == list(range(15))
    several = Dataset.from_dict({"labels": [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]})
    assert spread(several, 2) == [0, 2]
    tokens = Dataset.from_dict({"labels": [[1, 2], [1, 2], [3, 4]]})
    assert spread(tokens, 2) == [0, 1]
    numbers = Dataset.from_dict({"labels": [0.5, 0.5, 0.7]})
    assert spread(numbers, 2) == [0, 1]


@pytest.fixture
def small(tmp_path, quick):
    """A folder of images of 32 x 32 pixels in three classes, and overrides for a short run."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog", "owl")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(6):
            pixels = rng.integers(0, 85, (32, 32, 3), dtype=np.uint8) + 85 * number
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(tmp_path / "images" / name / f"{index}.png")
    short = ["experiment=vit_digits", "trainer.max_steps=1", *quick]
    return [*short, f"data.path={tmp_path / 'images'}"]


def test_small_images_are_not_shrunk_in_silence(small, caplog):
    """The line to paste leaves them as they are, and the samples are of all classes."""
    with caplog.at_level(logging.WARNING):
        hydralight.train([*small, "callbacks.samples=null"])
    (said,) = [r.getMessage() for r in caplog.records if "are shrunk to 8" in r.getMessage()]
    assert "of about 32 pixels" in said
    pasted = ["tokenizer.options.size={height: 32, width: 32}", "model.config.image_size=32"]
    assert all(line in said for line in pasted)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run = hydralight.train([*small, *pasted, "model.config.patch_size=8"])
    assert not any("are shrunk" in r.getMessage() for r in caplog.records)
    assert run.model.config.image_size == 32
    rows = [json.loads(line) for line in (run.path / "samples/step-00000001.jsonl").open()]
    assert {row["reference"] for row in rows} == {"cat", "dog", "owl"}
    assert all(Image.open(row["image"]).size == (32, 32) for row in rows)


def test_samples_show_images_that_no_file_holds(quick):
    run = hydralight.train(["experiment=vit_digits", "trainer.max_steps=1", *quick])
    folder = run.path / "samples"
    rows = [json.loads(line) for line in (folder / "step-00000001.jsonl").open()]
    assert len({row["reference"] for row in rows}) == len(rows) == 3
    own = digits()["train"]
    known = {image["bytes"]: label for image, label in zip(own["image"], own["label"], strict=True)}
    for row in rows:
        shown = np.asarray(Image.open(folder / row["image"]).convert("L"))
        same = [
            label
            for image, label in known.items()
            if np.array_equal(shown, np.asarray(Image.open(io.BytesIO(image))))
        ]
        assert same == [row["reference"]]
