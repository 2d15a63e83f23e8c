"""One folder per engine that POD-Attention plugs into."""
