"""Claims about the memory library."""
