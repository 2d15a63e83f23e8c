"""How fast is it: published cases, the sweep of the paper, tuning."""
