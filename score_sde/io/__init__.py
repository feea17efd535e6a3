"""Files that runs write and read."""
