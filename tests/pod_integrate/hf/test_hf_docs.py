"""The README's example runs, and the documents name what the code has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.engines import hf_models
from pod_integrate.engines.transformers import patches

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "transformers.md").read_text()


# What a laptop can spare; most of what the example takes are the imports.
READMES_MEMORY = 2 << 30
# Not getrusage: a child starts with the peak of the pytest process that it was forked from.
_PEAK = """
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(line.split()[1])
"""


def test_readme_example_answers_every_prompt_on_a_cpu_within_its_memory() -> None:
    found = re.search(
        r"<!-- transformers:begin -->\n```python\n(.*?)```\n<!-- transformers:end -->",
        (ROOT / "README.md").read_text(),
        re.DOTALL,
    )
    assert found is not None
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", found[1] + _PEAK],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    *lines, kibibytes = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["5", "300", "40"]
    assert all(len(re.findall(r"\d+", line)) == 9 for line in lines)
    assert int(kibibytes) << 10 < READMES_MEMORY


def test_guide_lists_every_patch_point_and_the_supported_versions() -> None:
    for patch in (*patches.PATCHES, *patches.SERVE_PATCHES):
        assert f"`{patch.attribute}`" in GUIDE, patch.attribute
    (first, last) = patches.VERSIONS
    assert (
        f"transformers {first[0]}.{first[1]} up to and including {last[0]}.{last[1] - 1}" in GUIDE
    )


def test_guide_names_every_compared_model() -> None:
    listed = GUIDE.lower().replace(" ", "").replace("-", "")
    for name in hf_models.MODELS:
        assert name.replace("_", "") in listed, name
