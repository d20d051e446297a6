"""The Grafana dashboard, generated from the same expressions as the rules."""
