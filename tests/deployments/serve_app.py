"""Runs the Serve application of the KubeRay manifest on a local Ray; writes what it answered.

To a file: Ray prints to both streams when it likes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import httpx


def main(data_dir: str, port: int) -> None:
    from tuner.host.service import prepare_ray
    from tuner.settings import load

    settings = load(workers=1)
    # Loopback only, and the time that Serve's proxy takes on a busy machine. Ray reads its
    # environment at import.
    prepare_ray(settings)

    import ray
    from ray import serve

    from tuner.host import ray_service
    from tuner.host.ray_actors import RayCore
    from tuner.ray_app import app_builder
    from tuner.view.overview import overview as overview_of

    ray_service._start_ray(settings)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app_builder({"data_dir": data_dir, "workers": 1}), name="pod-tuner")
        url = f"http://127.0.0.1:{port}"
        overview = httpx.get(f"{url}/v1/overview", timeout=60).json()
        refused = httpx.post(f"{url}/v1/traces", content=b"", timeout=60).status_code
        # The core outlives the replica that started it.
        serve.delete("pod-tuner")
        time.sleep(1)
        alive = RayCore().call(overview_of).tuner.host_mode
        said = {"tuner": overview["tuner"], "refused": refused, "alive": alive}
        Path(data_dir, "said.json").write_text(json.dumps(said))
    finally:
        serve.shutdown()
        ray.shutdown()


main(sys.argv[1], int(sys.argv[2]))
