"""Models that transformers does not have, written here, without code from checkpoints."""
