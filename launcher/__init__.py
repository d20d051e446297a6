"""launcher: starts and supervises TorchServe, exposes health and metrics, drains on shutdown.

It speaks to TorchServe over HTTP only and imports neither the library nor TorchServe; the fork server, a program of its
own, imports TorchServe's worker.

    __main__    the commands: serve, doctor, prepare
    settings    options and ports                      resources, plan   cgroup limits -> workers and memory
    preflight   checks before a start                  doctor            the same checks, as a report
    supervisor  start, serve, drain, stop              process, guard    TorchServe as a child process
    fork_server, fork_client   start workers in a second
    releases    which version answers (file)           release_command, default_versions   state it, follow it
    workers     which workers have answered            drain, tcp_info   waits until nothing is in flight
    status_server, metadata   health, models, drain    metrics, access_log   Prometheus text, the gateway's records
"""
