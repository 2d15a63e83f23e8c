"""Terms that every plane shares: geometry, batch, config, and the documents made of them."""
