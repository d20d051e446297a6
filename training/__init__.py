"""Training: photographs in, a proven bundle out. `python -m training` lists the commands."""
