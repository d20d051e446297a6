"""`python -m loadtests gpu`: what a machine with a GPU does, part by part, as one Markdown table; a CPU is a rehearsal.

    command -> a process per part, with its share of the time -> PART.json, written as it goes -> table

job        what a part gets: bundle, archive, images, time; and the file that it writes its rows to
library    parts in process: environment, engine, decode, agreement
service    parts over HTTP: TorchServe at 1 to 256 connections, and with a worker killed under load
training   images/s of training steps, and of the recipe
"""
