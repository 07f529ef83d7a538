"""Ordered ratings of reviews: an example of a project that is built on Hydralight."""
