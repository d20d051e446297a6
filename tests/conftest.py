"""Signals: a shell without job control starts background jobs with SIGINT and SIGQUIT ignored, nohup with SIGHUP.

Programs inherit that, so tests that stop one by such a signal would wait for ever: the suite begins with the defaults.
"""

import signal

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)
