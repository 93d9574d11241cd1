"""One complete experiment per file."""
