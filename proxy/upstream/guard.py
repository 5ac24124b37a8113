"""Where no upstream may be, whatever a name resolves to: the addresses under which clouds hand out a machine's credentials. Pure."""

import ipaddress

_METADATA = frozenset({ipaddress.ip_address("fd00:ec2::254")})


def is_forbidden(address: str) -> bool:
    """`address`: as getaddrinfo gives it, perhaps with a zone."""
    found = ipaddress.ip_address(address.partition("%")[0])
    plain = getattr(found, "ipv4_mapped", None) or found
    return plain.is_link_local or plain.is_multicast or plain.is_unspecified or plain in _METADATA
