"""Measuring goes last, also where Linux shares the CPU by session."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os, sys
from pathlib import Path
from tuner.measure.polite import be_polite
before = os.getsid(0)
be_polite(5)
print(os.nice(0), before != os.getsid(0), Path("/proc/self/autogroup").read_text().split()[-1])
"""


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="no autogroup scheduling")
def test_a_measuring_child_gets_its_own_session_with_its_niceness() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(os.nice(0) + 5), "True", str(os.nice(0) + 5)]


def test_a_group_leader_stays_where_it_is_and_is_nice_all_the_same() -> None:
    code = "import os; from tuner.measure.polite import be_polite; s = os.getsid(0); be_polite(5);"
    code += " print(os.nice(0), s == os.getsid(0))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, process_group=0
    )
    assert done.stdout.split() == [str(os.nice(0) + 5), "True"]
