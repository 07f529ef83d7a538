"""Image processors: what brings an image to a model's size, mean and standard deviation."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, BaseImageProcessor
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

from hydralight.errors import UserError, did_you_mean, told
from hydralight.hub import only_cached
from hydralight.model_configs import default_config, read_config


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A recipe that loads a checkpoint's image processor.

    Args:
        checkpoint: Hub id or local folder.
        revision: Branch, tag or commit on the hub.
        options: Values that replace the checkpoint's, such as `{size: {height: 384, width: 384}}`.
    """

    checkpoint: str | None
    revision: str | None = None
    options: Mapping[str, Any] | None = None

    def __call__(
        self, texts: Callable[[], Iterable[str]], cache_key: str, cache_dir: Path
    ) -> BaseImageProcessor:
        """Load it; there is nothing to train.

        Raises:
            UserError: the checkpoint is missing, or has no image processor.
        """
        if self.checkpoint is None:
            raise UserError("checkpoint has no value: give checkpoint=<hub id or folder>.")
        read_config(self.checkpoint, self.revision)
        with told(f"checkpoint={self.checkpoint} has no image processor"):
            made = AutoImageProcessor.from_pretrained(
                self.checkpoint,
                revision=self.revision,
                local_files_only=only_cached(self.checkpoint),
                **{"trust_remote_code": False, **(self.options or {})},
            )
        check_options(made, self.options or {})
        return made


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """A recipe for an architecture's default image processor, with other values.

    Args:
        model_type: The architecture, such as `vit`.
        options: Values that replace the defaults, such as `{size: {height: 8, width: 8}}`.
    """

    model_type: str
    options: Mapping[str, Any] | None = None

    def __call__(
        self, texts: Callable[[], Iterable[str]], cache_key: str, cache_dir: Path
    ) -> BaseImageProcessor:
        """Build it.

        Raises:
            UserError: the architecture is unknown, or does not see images.
        """
        config = default_config(self.model_type)
        try:
            kinds: Any = IMAGE_PROCESSOR_MAPPING[type(config)]
        except KeyError as error:
            raise UserError(
                f"tokenizer.model_type={self.model_type} does not see images."
            ) from error
        # the one that needs no torchvision comes last
        kinds = kinds if isinstance(kinds, dict) else dict(enumerate(kinds))
        kind = kinds.get("pil") or next(k for k in reversed(list(kinds.values())) if k)
        with told("tokenizer.options"):
            made = kind(**(self.options or {}))
        check_options(made, self.options or {})
        return made


def check_options(processor: BaseImageProcessor, options: Mapping[str, Any]) -> None:
    """Refuse values that an image processor does not have: it takes them, and reads none.

    Raises:
        UserError: there is one.
    """
    kwargs = getattr(type(processor), "valid_kwargs", None)
    known = [*getattr(kwargs, "__annotations__", ()), "trust_remote_code"]
    for name in options if kwargs is not None else ():
        if name not in known:
            kind = type(processor).__name__
            raise UserError(
                f"tokenizer.options.{name}: {kind} has no '{name}'{did_you_mean(name, known)}"
            )
