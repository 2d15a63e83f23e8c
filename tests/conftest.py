"""Settings that all tests share."""

from __future__ import annotations

import ctypes
import sys

import hypothesis

# No deadline: examples share their cores with other work. No database: a failure prints the
# blob that reproduces it, and runs leave no files.
hypothesis.settings.register_profile("project", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile("project")


def pytest_unconfigure() -> None:
    """Keep SWIG's modules alive past the interpreter's end.

    sentencepiece, which SGLang imports into the test process, dereferences its freed type when
    its capsule goes at exit, and a crash there would turn a passed run into a failed one.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(("swig_runtime_data", "sentencepiece")):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))
