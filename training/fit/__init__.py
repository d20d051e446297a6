"""Fit: recipe -> trained weights; sweeps, profiles and the learning-rate finder."""
