"""Publish: `python publish.py run=latest repo=user/name`; see docs/hub.md."""

from hydralight.manners import manners

# Bash completes the arguments of a script with "@hydra.main" in it (README.md: Commands).
if __name__ == "__main__":
    with manners():
        from hydralight.cli import main

        main("publish")
