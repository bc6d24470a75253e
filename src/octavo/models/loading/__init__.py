"""Filling a model from its files: one reader pool, cast or quantized while reading."""
