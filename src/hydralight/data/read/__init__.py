"""From what was typed (files, folders, globs, hub ids) to rows with their own columns."""
