"""Runs a tuner as its own process and prints its phases: `python run_tuner_process.py DIR ...`.

With `poor` the default config is one that wastes most of its time on splits and tiny tiles, so
that a better config surely exists.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from unittest import mock

from pod_integrate.devices.cpu.target import CpuTarget
from pod_integrate.terms.config import PodConfig, TileConfig
from pod_integrate.terms.keys import Geometry


def poor_default(_target: CpuTarget, _geometry: Geometry) -> PodConfig:
    tile = TileConfig(q_rows=16, kv_rows=16)
    return PodConfig(
        prefill=tile, decode=tile, ctas_per_sm=1, max_prefill_waves=0, decode_split_tokens=32,
        strategy="serial",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--poor", action="store_true")
    parser.add_argument("--ray", action="store_true")
    chosen = parser.parse_args()
    logging.basicConfig(level="WARNING")
    from tuner.host.service import run_tuner
    from tuner.settings import load

    if chosen.poor:
        mock.patch.object(CpuTarget, "default_config", poor_default).start()
    settings = load(data_dir=chosen.folder, port=0, workers=chosen.workers, trials=8, nice=1)

    def on_phase(phase: str, detail: str) -> None:
        print(phase, detail, flush=True)

    run_tuner(settings, on_phase=on_phase, ray=chosen.ray)


if __name__ == "__main__":
    main()
