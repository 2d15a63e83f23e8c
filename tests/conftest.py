"""Settings that all tests share."""

from __future__ import annotations

import warnings

import hypothesis

# No deadline: examples share their cores with other work. No database: a failure prints the
# blob that reproduces it, and runs leave no files.
hypothesis.settings.register_profile("project", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("project")


def pytest_unconfigure() -> None:
    """Let sentencepiece, which SGLang imports into the test process, end without a crash.

    Its SWIG layer makes a type when the interpreter ends; where warnings are errors the
    deprecation warning about that type makes it dereference NULL.
    """
    warnings.filterwarnings("ignore", message="builtin type swigvarlink")
