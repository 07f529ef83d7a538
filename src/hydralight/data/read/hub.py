"""Data sets of the Hugging Face hub."""

import logging
from collections.abc import Mapping

import datasets
from datasets import Dataset
from datasets.exceptions import DatasetNotFoundError

from hydralight.errors import UserError, first_line
from hydralight.hub import hub_answers

log = logging.getLogger(__name__)


def load_hub(
    path: str, name: str | None, revision: str | None, splits: Mapping[str, str]
) -> dict[str, Dataset]:
    """Load splits of a hub data set, from the cache where the hub cannot be reached.

    Args:
        path: Its id.
        name: Its configuration.
        revision: A branch, tag or commit.
        splits: Our split names to the hub's split expressions; without any, those of train,
            validation and test that it has.

    Raises:
        UserError: there is none of that id, configuration or split, or none that can be reached.
    """
    settings, forced = datasets.config, datasets.config.HF_HUB_OFFLINE
    # Without a network the hub's client retries for half a minute; offline, only the cache is read.
    settings.HF_HUB_OFFLINE = forced or not hub_answers()
    if settings.HF_HUB_OFFLINE and revision is not None:
        log.warning("Offline, the newest cached copy of %s stands for every revision.", path)
    try:
        loaded = datasets.load_dataset(
            path, name, revision=revision, split=list(splits.values()) or None
        )
    except DatasetNotFoundError as error:
        raise UserError(
            f"{path} is no file or folder here, and on the hub: {first_line(error)}."
        ) from error
    except (ConnectionError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and "LocalEntryNotFound" not in str(error):
            raise UserError(
                f"The hub data set {path} cannot be loaded: {first_line(error)}."
            ) from error
        why = "HF_HUB_OFFLINE is set" if forced else f"{settings.HF_ENDPOINT} cannot be reached"
        raise UserError(
            f"{path} is no file or folder here, and the hub data set cannot be had, as {why} and "
            f"{settings.HF_DATASETS_CACHE} has no copy of it: name local files in data.path, a "
            "mirror in HF_ENDPOINT, or an HF_HOME that has a copy."
        ) from error
    except Exception as error:
        raise UserError(
            f"The hub data set {path} cannot be loaded: {first_line(error)}."
        ) from error
    finally:
        settings.HF_HUB_OFFLINE = forced
    if splits:
        return dict(zip(splits, loaded, strict=True))
    found = {split: loaded[split] for split in ("train", "validation", "test") if split in loaded}
    if not found:
        raise UserError(
            f"The hub data set {path} has the splits {', '.join(loaded)}: say in data.splits which "
            "of them are train, validation and test."
        )
    return found
