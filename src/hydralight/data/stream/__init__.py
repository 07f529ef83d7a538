"""Training rows that are read and encoded as they are needed, with nothing prepared."""
