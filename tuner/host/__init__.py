"""Who holds the one Tuner and how others reach it: thread, processes, or Ray."""
