"""What all trials of a sweep import, loaded once by the process that they are forked from."""

# ruff: noqa: F401

import gc

import matplotlib.backends.backend_agg
import optuna
import transformers.generation
import transformers.models.auto.modeling_auto
import typeguard
from hydra.core.plugins import Plugins

import hydralight.tasks.seq2seq  # and with it ROUGE, BLEU and a model
import hydralight.training

Plugins.instance()  # which looks through all packages
gc.collect()
gc.freeze()  # as a collection would write to all pages that forked processes share
