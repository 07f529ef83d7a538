"""What a run is in a notebook."""

import base64
import io
import json
import re

import pytest
from PIL import Image

import hydralight


@pytest.fixture
def path(tmp_path):
    """A directory that says it holds a run, with names that are no good ones."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra/config.yaml").write_text("seed: 1\n")
    (tmp_path / "metrics.csv").write_text("step,epoch,val/loss\n1,0,0.5\n2,0,0.25\n")
    metrics = {
        "status": "finished",
        "last": {"step": 4, "val/loss": 0.5},
        "best": {"step": 2, "val/loss": 0.25, "val/<b>": "NaN"},
        "test": {"test/loss": 0.75},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    return tmp_path


def cells(html):
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


@pytest.mark.draws
def test_a_run_shows_itself(path):
    run = hydralight.Run(path)
    before = sorted(path.rglob("*"))
    html = run._repr_html_()
    assert cells(html) == [
        ["", "last", "best", "test"],
        ["step", "4", "2", ""],
        ["loss", "0.5000", "0.2500", "0.7500"],
        ["&lt;b&gt;", "", "nan", ""],
    ]
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    assert Image.open(io.BytesIO(base64.b64decode(picture))).width > 300
    assert sorted(path.rglob("*")) == before
    assert repr(run) == (f"Run('{path}'): finished, best at step 2: val/loss 0.2500, val/<b> nan")


def test_a_run_that_has_logged_nothing_shows_itself(path):
    (path / "metrics.csv").write_text("step,epoch,val/loss\n1,0,0.5,7,8\n")
    assert "is damaged" in hydralight.Run(path)._repr_html_()
    for name in ("metrics.csv", "metrics.json"):
        (path / name).unlink()
    assert repr(hydralight.Run(path)) == f"Run('{path}'): begun"
    assert "img" not in hydralight.Run(path)._repr_html_()


def test_a_run_goes_on(path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "hydralight.commands.start", lambda command, words: asked.append((command, words)) or path
    )
    again = hydralight.Run(path).resume(["trainer.max_epochs=2"])
    assert again.path == path
    assert asked == [("train", [f"resume='{path}'", "trainer.max_epochs=2"])]
