"""Model monitoring: dashboard, drift reference, online evaluation, drift detection. `python -m monitoring --help`."""
