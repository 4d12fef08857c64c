"""`python -m tritpack` is the command `tritpack`."""

from tritpack.converter.cli.main import main

if __name__ == "__main__":
    main()
