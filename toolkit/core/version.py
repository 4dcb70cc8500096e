"""The version of the toolkit; pyproject.toml reads it from here."""

VERSION = "0.1.0"
