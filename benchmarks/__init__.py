"""Hydralight beside Hugging Face's Trainer, on the same models, data and settings."""
