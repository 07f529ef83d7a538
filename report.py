"""Tables and pictures again: `python report.py <run or sweep directory>`; see README.md."""

import sys

from hydralight.cli import report

if __name__ == "__main__":
    report(sys.argv)
