"""Reports with tables and plots, built only from stored results."""
