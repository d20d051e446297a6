"""The options of each command of `python -m training`: read in a moment, without torch and what a command runs on."""
