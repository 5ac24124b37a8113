"""`python -m clearpane.cli`, for places where the command itself is not on the path."""

from clearpane.cli import main

if __name__ == "__main__":
    main()
