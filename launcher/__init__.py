"""serving: starts TorchServe honestly, says how it is doing, ends it without loss; asks a running one.

HTTP only: it imports neither library nor server.

    __main__   the commands                       settings, limits, gpus   what a server is started with
    preflight  what would fail, said before       server                   TorchServe as a child
    life       start, stay, drain, stop           watch, prober, workers   who of its workers has answered
    status     the port that tells                drain, connections       when nothing is in flight any more
    metrics    what it tells to Prometheus        access                   the gateway's records
"""
