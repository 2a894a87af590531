import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from richsem import paths

SCRIPT = Path(__file__).parents[1] / "reliability.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux shows them")
def test_what_is_killed_goes_on_and_ends_as_if_nothing_had_been():
    words = [sys.executable, str(SCRIPT), "--kills", "2", "--only", "train", "--only-kills"]
    env = {**os.environ, "PYTHONPATH": str(paths.ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "0 faults" in done.stdout, done.stdout + done.stderr
    assert sum(map(int, re.findall(r"(\d+) train killed: fine", done.stdout))) == 2
