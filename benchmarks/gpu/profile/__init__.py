"""Where time goes inside one launch."""
