"""From requests to tensors: what several families share, on numpy and Pillow."""
