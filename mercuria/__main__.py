"""`python -m mercuria` is the `mercuria` command."""

from mercuria.cli import main

if __name__ == "__main__":
    main()
