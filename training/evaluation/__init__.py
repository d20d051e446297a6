"""Evaluation: metrics, intervals, calibration, robustness and the report."""
