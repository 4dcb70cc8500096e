"""Basic types and file formats, used by all other packages."""
