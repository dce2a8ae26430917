"""`python -m convkit`, the same as the `convkit` command."""

from convkit.cli import main

if __name__ == "__main__":
    main()
