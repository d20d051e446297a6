"""The evaluation report: figures -> sections -> report.md, metrics.json and plots."""
