"""Worker processes that open and run sessions, their clients and their protocol."""
