"""Evaluate a run or a checkpoint: `python eval.py run=latest`; see README.md."""

from hydralight.manners import manners

if __name__ == "__main__":
    with manners():
        from hydralight.cli import main

        main("eval")
