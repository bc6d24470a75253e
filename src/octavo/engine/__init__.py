"""Answers many requests at once inside a memory budget."""
