"""Training metrics: log file, throughput, experiment trackers."""
