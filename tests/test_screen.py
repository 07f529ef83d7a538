"""What the program shows: to somebody who looks on, and to a file."""

import time

from hydralight import progress


def test_what_takes_long_is_said(caplog):
    """In a pipe: a line once it takes long, and one at its end; nothing of what is quick."""
    caplog.set_level("INFO")
    with progress.waiting("reading a small file", patience=5):
        pass
    with progress.waiting("reading a large file", patience=0.02):
        time.sleep(0.2)
        assert caplog.messages == ["reading a large file …"]
    assert caplog.messages[1:] == ["reading a large file: 0:00"]
