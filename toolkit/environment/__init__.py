"""The command doctor, which describes this machine and its packages."""
