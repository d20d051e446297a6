"""The commands of `python -m training`: options in, library calls, a few printed lines out."""
