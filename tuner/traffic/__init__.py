"""What servers send: their load by bucket, the steps kept for replay, and their limits."""
