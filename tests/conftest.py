"""Settings that all tests share.

Property tests draw the same examples in every run, and files run in the same order, so that a red
run is the change's own fault and blocks nobody by chance. New examples and another order, the
seed of which is printed, are for whoever looks for bugs:

    make test-random      (SEED=... repeats a run)
"""

from __future__ import annotations

import hypothesis

# No deadline: examples share their cores with other work. No database: a failure prints the
# blob that reproduces it, and runs leave no files.
hypothesis.settings.register_profile("random", deadline=None, database=None, print_blob=True)
hypothesis.settings.register_profile(
    "same", hypothesis.settings.get_profile("random"), derandomize=True
)
# What --hypothesis-profile names is loaded after this.
hypothesis.settings.load_profile("same")
