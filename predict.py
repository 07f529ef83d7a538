"""Predict: `python predict.py run=latest input=articles.txt`; see README.md."""

from hydralight.manners import manners

if __name__ == "__main__":
    with manners():
        from hydralight.cli import main

        main("predict")
