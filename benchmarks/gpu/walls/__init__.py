"""What an SM of a Hopper GPU does at most, alone and at once."""
