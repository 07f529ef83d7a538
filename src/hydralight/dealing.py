"""From the flat keys of `data` and `optimizer` to their parts, and what else a config names."""

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

from hydra.utils import get_class, get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import split_key

from hydralight.config.blame import key_of, refused
from hydralight.config.check import parameters
from hydralight.data.batches import Batching
from hydralight.data.corpus.corpus import Corpus
from hydralight.data.encoding import Encoding
from hydralight.data.mix import Mix
from hydralight.data.module import DataModule
from hydralight.data.source import Source
from hydralight.data.splits import Splits
from hydralight.errors import UserError
from hydralight.optim.build import Grouped
from hydralight.optim.groups import Grouping

log = logging.getLogger(__name__)


def built(node: DictConfig, **arguments: Any) -> Any:
    """Instantiate a node; whatever its parts refuse is told in a sentence that names the key.

    Raises:
        UserError: a part is built with the wrong arguments, or needs a package.
    """
    try:
        return instantiate(_apart(node), **arguments, _convert_="object")
    except Exception as error:
        raise UserError(refused(key_of(error) or str(node._get_full_key(None)), error)) from error


def _apart(node: DictConfig) -> DictConfig:
    """Return a node resolved and at its place, without the config around it, which Hydra copies."""
    content: Any = OmegaConf.to_container(node, resolve=True)
    if "${" in str(content):  # a text that is not to be read as an interpolation
        return node
    place = str(node._get_full_key(None))
    for key in reversed(split_key(place)):
        content = {key: content}
    root: Any = OmegaConf.create(content)
    return OmegaConf.select(root, place)


def build_data(cfg: DictConfig) -> DataModule:
    """Build the data module: the flat keys of `data` are dealt out to its parts by their fields.

    The shape is what `data._target_` names. `data.source` names a function or a class of the
    user's own, which takes flat keys too.
    """
    tokenizer = built(cfg.tokenizer)
    own = {"_target_", "source"}
    keys = {str(key): cfg.data[key] for key in cfg.data if key not in own}
    keys = built(OmegaConf.create({"data": keys}).data)  # an augmentation is an object by now
    node = cfg.data.get("source")
    source = None if not node else plain(own_source(node, keys))
    keys["keep"] = plain(keys.get("keep"))
    corpus, batching = dealt(Corpus, keys), dealt(Batching, keys)
    mix = dealt(Mix, keys)
    if mix.sets:
        batching.check_mixture()
    if corpus.is_sampled:
        batching.check_windows()  # before it is prepared, which may take long
        if batching.group_by_length:  # which many recipes say
            log.warning(
                "data.group_by_length makes no difference to a prepared corpus or a stream: the "
                "lengths of all its rows are not known."
            )
    mix.check_prepared(corpus.prepared)
    return DataModule(
        shape=dealt(get_class(cfg.data._target_), keys),
        source=dealt(Source, {**keys, "source": source}),
        splits=dealt(Splits, keys),
        mix=mix,
        encoding=dealt(Encoding, keys),
        batching=batching,
        corpus=corpus,
        tokenizer=corpus.keeping(tokenizer),
    )


def build_optimizer(cfg: DictConfig) -> Grouped:
    """Build the recipe of the optimizer: keys of groups come to these, the others to its class."""
    ours = {field.name for field in fields(Grouping)}
    keys = {str(key): cfg.optimizer[key] for key in cfg.optimizer}
    node = OmegaConf.create({"optimizer": {k: v for k, v in keys.items() if k not in ours}})
    given = {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in keys.items()
    }
    return Grouped(built(node.optimizer), dealt(Grouping, given))


def dealt(part: type, keys: Mapping[str, Any]) -> Any:
    """Build a dataclass from those of the keys that are its fields."""
    names = {field.name for field in fields(part)}
    return part(**{key: value for key, value in keys.items() if key in names})


def plain(function: Any) -> Any:
    """Return a function that a config names as one that can be pickled, which Hydra's cannot.

    It goes to the processes that encode, and its hash tells what was made with another.
    """
    if not isinstance(function, partial):
        return function
    return partial(function.func, *function.args, **function.keywords)


def own_source(node: Any, keys: Mapping[str, Any]) -> Callable[[], Any]:
    """Build a source of the user's own: a function with its arguments, or an object to call.

    Args:
        node: Its dotted path, or a node with `_target_` and arguments.
        keys: Keys of the group, of which it gets those that it takes.
    """
    node = {"_target_": node} if isinstance(node, str) else dict(node)
    made = get_object(node["_target_"])
    accepted, _ = parameters(made)
    later = {} if inspect.isclass(made) else {"_partial_": True}  # an object is made now
    taken = {key: value for key, value in keys.items() if key in accepted}
    signature = inspect.signature(made).parameters
    for name in accepted.keys() - taken.keys() - node.keys():
        if signature[name].default is inspect.Parameter.empty:
            raise UserError(f"data.source={node['_target_']} needs '{name}': give data.{name}=…")
    source = built(OmegaConf.create({"data": {"source": {**taken, **node, **later}}}).data.source)
    if not callable(source):
        raise UserError(
            f"data.source={node['_target_']}: its objects should be called, and return splits."
        )
    return source
