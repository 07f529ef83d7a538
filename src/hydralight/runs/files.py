"""Files and folders that are whole or not there."""

import os
import shutil
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a file that appears only when it is whole."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def fresh_folder(path: Path) -> Path:
    """Make an empty folder, in the place of what was there."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def replace_folder(new: Path, old: Path) -> None:
    """Put a complete folder in the place of another; `restore_folder` mends an interruption."""
    previous = old.with_name(f"{old.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if old.exists():
        old.rename(previous)
    new.rename(old)
    shutil.rmtree(previous, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Take back the previous folder where a replacement was interrupted between its two steps."""
    previous = path.with_name(f"{path.name}.previous")
    if previous.exists() and not path.exists():
        previous.rename(path)


def copy_folder(path: Path, copy: Path) -> None:
    """Copy a complete folder as a whole, by hard links where the disk has them."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copyfile(source, target)

    partial = copy.with_name(f"{copy.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(path, partial, copy_function=link)
    replace_folder(partial, copy)
