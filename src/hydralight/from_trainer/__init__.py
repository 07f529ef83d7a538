"""From a script with transformers' Trainer to a command line: its arguments, said as keys."""
