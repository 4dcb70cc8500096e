"""Command line: one module per command, which parses options, calls one function, and prints."""
