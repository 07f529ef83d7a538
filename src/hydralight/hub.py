"""Whether the Hugging Face hub can be reached."""

from functools import cache
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session


def only_cached(checkpoint: str) -> bool:
    """Whether a checkpoint is on the hub, and the hub out of reach."""
    return not Path(checkpoint).expanduser().is_dir() and not hub_answers()


@cache
def hub_answers() -> bool:
    """Ask once, for five seconds at most: the hub's own client retries for half a minute."""
    try:
        return get_session().head(constants.ENDPOINT, timeout=5).status_code < 500
    except Exception:
        return False
