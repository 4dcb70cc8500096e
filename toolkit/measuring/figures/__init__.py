"""Statistics, figures, comparisons and warnings from stored samples."""
