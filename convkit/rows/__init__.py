"""What a worker does with rows. It imports little: whatever one loads, each of them does before its first row."""
