"""Predict: `python predict.py run=latest input=articles.txt`; see README.md."""

from hydralight.cli import main

if __name__ == "__main__":
    main("predict")
