"""What the suite does not hand down to the programs that it starts, from the shell and from `make test ARGS=...`.

A shell without job control starts background jobs with SIGINT and SIGQUIT ignored, nohup with SIGHUP: tests that stop
a program by such a signal would wait for ever. A make within a test would take the outer one's ARGS for its own.
"""

import os
import re
import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)

_given = re.findall(r"(?:^|\s)(\w+)=", os.environ.get("MAKEFLAGS", "").partition("-- ")[2])
for _name in (*_given, "MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(_name, None)
