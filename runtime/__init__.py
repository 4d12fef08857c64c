"""Running: a small C library, its Python face, and a slow numpy twin to hold it against."""
