"""Peers: the same decode and the same int8 model behind other servers, each in an environment of its own."""
