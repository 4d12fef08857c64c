"""Running a model: a small C library, its Python face, and a slow numpy reference to compare it with."""
