"""Processes that were started together, on one node or several: how they become one run."""
