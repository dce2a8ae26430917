"""Pictures and videos: opening them safely, and taking frames."""
