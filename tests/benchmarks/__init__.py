"""Measurements that need a quiet machine, or programs that somebody built: never part of the tests."""
