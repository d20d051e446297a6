"""The tuner: which batching, workers and threads sustain the highest rate under a latency target on this machine.

shipped settings -> search, one axis at a time -> the best against the shipped ones, interleaved -> a profile

setting   what is searched, and the archive that carries it
trial     one setting on a running service: the highest rate that it sustains
search    which settings are tried, and the log that lets it continue after an interruption
report    the table, the figure and the profile that `make archive` uses
"""
