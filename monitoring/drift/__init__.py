"""Drift: does what comes in still look like what the model was validated on? `python -m monitoring.drift --help`."""
