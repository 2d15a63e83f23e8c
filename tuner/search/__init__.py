"""One bucket's way from the first trial to a promotion: proposals, pairs, verdicts."""
