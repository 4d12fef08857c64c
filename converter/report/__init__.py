"""Reports of `verify` as files to keep."""
