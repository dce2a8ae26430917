"""Environment variables and log levels for training libraries; to be set before they are imported."""

import os


def silence_libraries() -> None:
    """Keep training libraries from writing progress bars and warnings that convkit already covers."""
    import logging  # imported here: it takes 3 ms, and few commands need it

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # warns about missing extras wherever it is installed
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)  # wherever it is installed
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # micro-batches have many sizes
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
