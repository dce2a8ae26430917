"""The `convkit` command, and `python -m convkit`.

Worker processes import the main module again: it must cost nothing until it is run.
"""


def main() -> None:
    """Run the command line."""
    from convkit.cli import main as run

    run()


if __name__ == "__main__":
    main()
