"""Drift detection: are the images that come in distributed like those the model was validated on?"""
