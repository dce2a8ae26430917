"""Where work runs. An engine is a function that maps a task over items, in order."""
