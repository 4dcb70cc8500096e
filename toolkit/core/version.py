"""Version of the toolkit, also read by pyproject.toml."""

VERSION = "0.1.0"
