"""What the tests of shapes share: rows as a loader's, batches of them, tasks without a trainer."""

from types import SimpleNamespace

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from hydralight.data.collate import collate
from hydralight.data.roles import Where

MY_CSV = Where("my.csv")


def rows_of(encoded, epoch=0):
    """Encoded columns as a loader's rows; `too_long` has been dealt with by then."""
    encoded = {name: values for name, values in encoded.items() if name != "too_long"}
    rows = [
        dict(zip(encoded, values, strict=True)) for values in zip(*encoded.values(), strict=True)
    ]
    return [{**row, "index": index, "epoch": epoch} for index, row in enumerate(rows)]


def batch_of(shape, encoded, processor, purpose="evaluate", epoch=0, seed=42):
    """A batch of all encoded rows."""
    return collate(
        rows_of(encoded, epoch),
        shape=shape,
        processor=processor,
        seed=seed,
        pad_to_multiple_of=None,
        purpose=purpose,
    )


def task_of(cls, label_names=None, **kwargs):
    """A task whose data module knows no more than the labels."""
    task = cls(model=None, optimizer=None, **kwargs)
    task.trainer = SimpleNamespace(datamodule=SimpleNamespace(label_names=label_names))
    return task


def wordpiece():
    """A WordPiece tokenizer, whose normalizer drops what is no visible character."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "storm", "river", "in", "##y", "##s"]
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    backend = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]"}
    specials = {f"{name}_token": token for name, token in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **specials)
