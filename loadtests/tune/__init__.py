"""The tuner: which batching, workers and threads hold the highest rate under a latency target on this machine.

shipped settings -> search, one axis at a time -> the best against the shipped ones, interleaved -> a profile

setting   what is searched, and the archive that carries it
trial     one setting on a running service: the highest rate that it holds
search    which settings are tried, and the notebook that lets it go on after an interruption
report    the table, the picture and the profile that `make archive` uses
"""
