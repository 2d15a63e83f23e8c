"""transformers plug-in: attention `pod`, continuous batching read in place."""
