"""From a dataset directory to micro-batches: lengths, batch schedule, data loading."""
