"""`python -m pod_integrate.cli` is `pod-attn`."""

from pod_integrate.cli.app import main

main()
