"""Prepare a corpus: `python prepare.py … data.prepared=<folder>`; see docs/corpora.md."""

from hydralight.manners import manners

# Bash completes the arguments of a script with "@hydra.main" in it (README.md: Commands).
if __name__ == "__main__":
    with manners():
        from hydralight.cli import main

        main("prepare")
