"""Tables and pictures again: `python report.py <run or sweep directory>`; see README.md."""

import sys

from hydralight.manners import manners

if __name__ == "__main__":
    with manners():
        from hydralight.cli import report

        report(sys.argv)
