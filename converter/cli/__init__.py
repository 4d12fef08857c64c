"""The command line: one thin file per command; the library functions have the same argument names."""
