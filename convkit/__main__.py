"""The `convkit` command, and `python -m convkit`.

Worker processes import the main module again: it must cost nothing until it is run.
"""


def main() -> None:
    """Run the command line."""
    import signal

    usual = signal.getsignal(signal.SIGINT)
    if usual == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing to clean up yet, and nobody wants a traceback
    from convkit.cli import main as run

    signal.signal(signal.SIGINT, usual)
    run()


if __name__ == "__main__":
    main()
