"""Train: `python train.py experiment=bart_cnn`; see README.md."""

from hydralight.cli import main

if __name__ == "__main__":
    main("train")
