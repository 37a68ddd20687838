"""The address at which Gloo listens, the library by which the CPUs of several processes communicate.

By default Gloo uses the address of the machine's name. On many machines that is 127.0.1.1, which other machines cannot
reach. jaxlib's `make_gloo_tcp_collectives` takes a `hostname`, but JAX 0.10 to 0.12 calls it without one, and has no
option for it. So that function is replaced here; if JAX calls something else, nothing changes. This file can go once
`jax.distributed.initialize`, or an option of JAX, takes the address.
"""

import socket
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import Any


def own_address(host: str, port: int) -> str | None:
    """The address of this machine towards process 0, where the others can reach it; None if unknown."""
    try:
        family, kind, _, _, there = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as s:
            s.connect(there)  # sends nothing
            return s.getsockname()[0]
    except OSError:
        return None


def listen_at(address: str) -> None:
    """Make Gloo listen at this address."""
    with suppress(ImportError, AttributeError):
        cpp: Any = import_module("jaxlib._jax")
        cpp.make_gloo_tcp_collectives = partial(cpp.make_gloo_tcp_collectives, hostname=address)
