"""The `convkit` command, also available as `python -m convkit`.

Worker processes import the main module again, so it imports nothing heavy before it runs.
"""


def main() -> None:
    """Run the command line from the terminal."""
    import signal

    handler = signal.getsignal(signal.SIGINT)
    if handler == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing to clean up yet, so end without a traceback
    from convkit.cli import main as run

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
