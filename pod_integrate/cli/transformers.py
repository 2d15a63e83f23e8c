"""`pod-attn transformers ...`: the stock transformers command line, with attention `pod` known."""

from __future__ import annotations

import typer

# Options belong to the wrapped command, --help too.
PASS_THROUGH = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def transformers(context: typer.Context) -> None:
    """Run transformers' own command line with attention `pod`, e.g. its server on POD.

    `pod-attn transformers serve MODEL --attn-implementation pod --continuous-batching` serves an
    OpenAI-style HTTP API. Every argument goes to the stock command: what `transformers ARGS` does,
    this does, and --help shows its help. Tuning works as for any engine: set POD_ATTN_TUNER_URL.
    """
    from pod_integrate import hf
    from pod_integrate.engines.transformers import patches

    hf.enable()
    patches.apply(patches.SERVE_PATCHES)
    from transformers.cli.transformers import app

    app(args=context.args, prog_name="pod-attn transformers")
