"""Train: `python train.py experiment=bart_cnn`; see README.md."""

from hydralight.manners import manners

if __name__ == "__main__":
    with manners():
        from hydralight.cli import main

        main("train")
