"""How far from the best config of a bucket searches end, judged by recorded times."""
