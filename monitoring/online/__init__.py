"""Live: is the running service still right? `python -m monitoring.online --help`."""
