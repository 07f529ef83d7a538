"""Run `train.py` to its first optimizer step; write when that was, and its CPU time till then.

python -m benchmarks.first_step <file> <overrides of train.py>
"""

import os
import runpy
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    from torch.optim.optimizer import register_optimizer_step_post_hook

    file = Path(sys.argv[1])

    def stop(*_: object) -> None:
        """Leave at once: what a run writes at its end is not what is measured."""
        file.write_text(f"{time.time()} {time.process_time()}")
        os._exit(0)

    register_optimizer_step_post_hook(stop)
    script = Path(__file__).resolve().parents[1] / "train.py"
    sys.argv = [str(script), *sys.argv[2:]]
    runpy.run_path(str(script), run_name="__main__")
