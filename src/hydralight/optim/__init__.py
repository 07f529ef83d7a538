"""Optimizers, groups of parameters, and learning-rate schedules."""

from hydralight.optim.schedules import on_evaluation, schedule

__all__ = ["on_evaluation", "schedule"]  # by these names in configs
