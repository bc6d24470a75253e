"""Claims about `octavo parse`: what it reads right, how fast, in how much memory."""
