"""Which HTTP proxy a URL is reached through, by the environment's HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.

As curl does it, with two rules on top: addresses of this machine are never reached through a proxy, and NO_PROXY takes
address ranges (10.0.0.0/8, fd00::/8), with or without brackets around an IPv6 address.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from visionserve.client.urls import split, without_password

_SCHEMES = ("http", "https", "socks5", "socks5h")
_IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def proxy_for(url: str) -> str | None:
    """Return the URL of the proxy to ``url``, or None for a direct connection.

    Raises:
        ValueError: the environment names a proxy that is not a URL.
    """
    parts = urlsplit(url)
    proxies: Mapping[str, str] = getproxies_environment()
    proxy = (proxies.get(parts.scheme) or proxies.get("all") or "").strip()
    if not proxy or bypasses(parts.hostname or "", parts.port, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    if split(proxy, _SCHEMES) is None:
        raise ValueError(
            f"The environment names a proxy that is not the URL of one: {without_password(proxy)!r}. "
            "It must look like http://host:port or socks5://host:port."
        )
    return proxy


def bypasses(host: str, port: int | None, no_proxy: str) -> bool:
    """Return whether a host is reached directly: it is this machine, or an entry of NO_PROXY matches it."""
    address = _address(host)
    if address is not None and (address.is_loopback or address.is_unspecified):
        return True
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return any(_matches(entry, name, address, port) for entry in no_proxy.lower().replace(",", " ").split())


def _matches(entry: str, name: str, address: _IpAddress | None, port: int | None) -> bool:
    if entry == "*":
        return True
    entry, entry_port = _split_port(entry)
    if entry_port is not None and entry_port != port:
        return False
    if address is not None:
        try:
            return address in ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            return False
    suffix = entry.removeprefix("*").strip(".")
    return bool(suffix) and (name == suffix or name.endswith("." + suffix))


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split host:port or [host]:port; an IPv6 address without brackets has no port."""
    host, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and (host.endswith("]") or ":" not in host):
        return host, int(port)
    return entry, None


def _address(host: str) -> _IpAddress | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address
