"""The commands of `python -m training`: library calls, a few printed lines out; options/ reads what they are given."""
