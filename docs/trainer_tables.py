"""Write the tables of `from-trainer.md` anew, from `table.yaml`: python docs/trainer_tables.py."""

import re
from pathlib import Path

from hydralight.from_trainer.table import in_markdown

DOCUMENT = Path(__file__).with_name("from-trainer.md")
TABLE = re.compile(r"<!-- (\w+) -->\n\n(?:\|.*\n)*")


def main() -> None:
    """Replace what stands below each mark."""
    text = DOCUMENT.read_text(encoding="utf-8")
    written = TABLE.sub(lambda mark: f"<!-- {mark[1]} -->\n\n{in_markdown(mark[1])}\n", text)
    DOCUMENT.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
