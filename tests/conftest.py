"""Tiny checkpoints and files; everything is offline, and the caches are the test session's own."""

import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hydralight-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from hydralight.config import CONFIG_DIR, register_resolvers

register_resolvers()
ROOT = CONFIG_DIR.parent
EXPERIMENTS = sorted(path.stem for path in (CONFIG_DIR / "experiment").glob("*.yaml"))

WORDS = "storm river council mayor bridge market harbour festival train school garden tower".split()
NUMBERS = ["two", "three", "four", "five", "six", "seven"]


def article(index: int) -> dict[str, str]:
    """A row with CNN/DailyMail's own column names; texts differ in length."""
    subject, place = WORDS[index % 12], WORDS[(5 * index + 3) % 12]
    number = NUMBERS[index % 6]
    body = [f"The {subject} near the {place} was seen by {number} people on that day."]
    body += [f"Then {WORDS[(index + k) % 12]} came {k} times." for k in range(index % 5)]
    summary = f"{number} people saw the {subject}." + " It was the end." * (index % 3)
    return {"article": " ".join(body), "highlights": summary}


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def articles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train (13 rows), validation (7) and test (4) as JSON lines."""
    folder = tmp_path_factory.mktemp("articles")
    for split, start, stop in [("train", 0, 13), ("validation", 20, 27), ("test", 40, 44)]:
        write_jsonl(folder / f"{split}.jsonl", [article(i) for i in range(start, stop)])
    return folder


@pytest.fixture(scope="session")
def tiny_bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BART of 30 thousand parameters with a tokenizer of its own, as an HF folder."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    from hydralight.tokenizers import Trained

    folder = tmp_path_factory.mktemp("checkpoints") / "tiny-bart"
    texts = [text for i in range(60) for text in article(i).values()]
    tokenizer = Trained(vocab_size=400).train(texts)
    torch.manual_seed(0)
    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer),
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=256,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def bart_cnn(tiny_bart: Path, articles: Path, tmp_path: Path) -> list[str]:
    """Overrides that run `bart_cnn` on the tiny checkpoint and files, below `tmp_path`."""
    files = ",".join(f"{s}:{articles / s}.jsonl" for s in ("train", "validation", "test"))
    return [
        "experiment=bart_cnn",
        f"checkpoint={tiny_bart}",
        f"data.path={{{files}}}",
        f"paths.log_dir={tmp_path / 'logs'}",
        "data.max_source_length=128",
        "generation.max_new_tokens=12",
        "trainer.accelerator=cpu",
        "trainer.log_every_n_steps=1",
        "callbacks.rich_progress=null",
    ]
