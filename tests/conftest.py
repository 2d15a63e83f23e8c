"""Settings that all tests share."""

from __future__ import annotations

import hypothesis

# No deadline: examples share their cores with other work. No database: a failure prints the
# blob that reproduces it, and runs leave no files.
hypothesis.settings.register_profile("project", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("project")
