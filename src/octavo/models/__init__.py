"""Models: checkpoints read, components loaded, families that turn requests into answers.

Importing this loads neither torch nor transformers.
"""
