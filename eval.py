"""Evaluate a run or a checkpoint: `python eval.py run=latest`; see README.md."""

from hydralight.cli import main

if __name__ == "__main__":
    main("eval")
