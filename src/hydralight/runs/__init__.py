"""The run directory: what is written in it, how it is found, and how it is read."""
