"""Makes `docs/images/quickstart.svg`, the picture of a terminal in the README: `make picture`.

It runs the quickstart on a terminal of 80 columns, and draws what that was sent. Of the bar, which
is drawn over and over, one frame is kept.
"""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import tempfile
import termios
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
TYPED = ["train.py", "trainer.max_epochs=2", "callbacks.samples.num_samples=1", "test=true"]
COLUMNS = 80


def sent(command: list[str]) -> str:
    """Run a command on a terminal, and return what that was sent."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    parts = []
    while True:
        try:
            parts.append(os.read(terminal, 65536))
        except OSError:  # the terminal's end
            break
        if not parts[-1]:
            break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = b"".join(parts).decode()
    if code:
        sys.exit(text)
    return text.replace("\r\n", "\n")


def shown(text: str) -> list[str]:
    """Return the lines that stay, and among them the last frame of the bar in the second epoch."""
    lines = []
    text = re.sub(r"\x1b\[\?25[lh]", "", text)
    text = re.sub(r"[^\n]*\n\r?\x1b\[1A\x1b\[2K", "", text)  # a bar that was taken away
    frames = re.findall(r"(?:^|\r\x1b\[2K|\r)([^\r\n]*epoch 2/2[^\r\n]*left[^\r\n]*)", text)
    for line in text.split("\n"):
        rest = re.split(r"\r(?:\x1b\[2K)?", line)[-1]
        if frames and "Samples after step 1000" in rest:
            lines.append(frames[-1])
        if rest.strip() or not line.strip():
            lines.append(rest)
    return lines


def main() -> None:
    """Run, and draw."""
    with tempfile.TemporaryDirectory() as folder:
        place = f"paths.log_dir={folder}"
        text = sent([sys.executable, *TYPED, place])
    text = text.replace(folder, "logs")
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(f"[bold]$ python {' '.join(TYPED)}[/bold]", highlight=False)
    for line in AnsiDecoder().decode("\n".join(shown(text)).strip()):
        for part in line.divide(range(COLUMNS, len(line), COLUMNS)) or [line]:
            console.print(part, soft_wrap=True)
    path = ROOT / "docs/images/quickstart.svg"
    console.save_svg(str(path), title="Hydralight", clear=False)
    print(console.export_text())


if __name__ == "__main__":
    main()
