"""Times of hundreds of configs on the steps of a few buckets, to judge searches by."""
