"""Addresses to listen at, with IPv6 and without. Imports nothing of the launcher: the gateway uses it too."""

import socket


def bindable(host: str) -> str:
    """Return the address to listen at: for ``::``, all of IPv6 and IPv4, it is 0.0.0.0 where IPv6 is missing."""
    return "0.0.0.0" if host == "::" and not socket.has_dualstack_ipv6() else host  # noqa: S104 - asked for
