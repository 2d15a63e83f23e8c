"""What the default runs each step with that shipped tables are measured on, as JSON.

    python benchmarks/default_choices.py

By geometry and bucket a digest of every step's config and plan; the order of items, which is the
planner's own for any config, is left out. `carry_tables` runs it in two checkouts, so it uses only
what both have.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

from benchmarks.gpu.shipped.search import Effort
from benchmarks.gpu.shipped.served import BATCHES, SERVED, Served
from pod_integrate.devices.cuda import limits
from pod_integrate.devices.cuda.batch_tiles import batch_config
from pod_integrate.live import shipped
from pod_integrate.model.items import make_plan
from pod_integrate.terms.keys import DeviceKey


def digest(served: Served, batch: str, device: DeviceKey) -> str:
    """Of what all steps around a batch run with by default, and of how that is cut into items."""
    default = limits.default_config(device, served.geometry)
    effort, found = Effort(), hashlib.sha256()
    for step in served.traffic(batch).steps(effort.screened + effort.confirmed):
        lengths = (np.array(each) for each in step)
        config = batch_config(default, served.geometry, device, *lengths)
        plan = make_plan(step, served.geometry, config, device.units)
        items = b"".join(np.sort(each).tobytes() for each in (plan.prefill, plan.decode))
        found.update(config.short().encode() + items)
        found.update(repr(plan.ratio).encode())
    return found.hexdigest()[:16]


def main() -> None:
    """Print the choices on every device that tables ship for."""
    devices = {str(table.device): table.device for table in shipped.everything()}
    choices = {
        name: {
            f"{served.geometry} {served.traffic(batch).bucket}": digest(served, batch, device)
            for served in SERVED
            for batch in BATCHES
        }
        for name, device in devices.items()
    }
    print(json.dumps(choices))


if __name__ == "__main__":
    main()
