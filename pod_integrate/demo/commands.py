"""Command lines and environments of the demo's two children."""

from __future__ import annotations

import sys

from pod_integrate.demo.options import DemoOptions

_MAX_TOTAL_TOKENS = 65_536


def tuner_command(options: DemoOptions, port: int) -> list[str]:
    """The tuner's command line."""
    command = [sys.executable, "-m", "pod_integrate.cli", "tuner", "up"]
    return [*command, "--port", str(port), "--state-dir", str(options.state / "tuner")]


def tuner_env() -> dict[str, str]:
    """What the tuner's environment has instead of this process's; empty is unset.

    What is set here for a service must neither publish the demo, nor keep its own clients out, nor
    mix its steps into the service's database.
    """
    return {
        "POD_TUNER_HOST": "127.0.0.1",
        "POD_TUNER_TOKEN": "",
        "POD_TUNER_DATABASE_URL": "",
        "POD_TUNER_TRACE_DIR": "",
    }


def server_command(options: DemoOptions, model: str, port: int) -> list[str]:
    """The stock server's command line; only --attention-backend is ours."""
    command = [sys.executable, "-m", "sglang.launch_server", "--model-path", model]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--attention-backend", "pod", "--enable-mixed-chunk"]
    command += ["--chunked-prefill-size", str(options.chunk)]
    command += ["--device", "cpu", "--dtype", "float32", "--skip-server-warmup"]
    # An idle scheduler would spin on a core that the tuner's worker can use.
    command += ["--sleep-on-idle"]
    # A share of memory is racy while two processes load; the token count is what is used.
    command += ["--mem-fraction-static", "0.5", "--max-total-tokens", str(_MAX_TOTAL_TOKENS)]
    return command


def server_env(options: DemoOptions, tuner_url: str) -> dict[str, str]:
    """What the server's environment has more than this process's."""
    return {
        # The demo is of one machine without a GPU, so that it is the same everywhere.
        "SGLANG_PLATFORM": "pod_cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "POD_ATTN_TUNER_URL": tuner_url,
        "POD_ATTN_TRACE_SAMPLE": "1.0",
        "POD_ATTN_TABLE": str(options.state / "table.json"),
    }
