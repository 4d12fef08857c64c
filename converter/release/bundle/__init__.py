"""A release in one file, NAME.tar.zst. The format is described in ../README.md."""
