"""Corpora that are prepared once, in shards, and read a window at a time."""
