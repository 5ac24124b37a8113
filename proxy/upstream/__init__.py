"""The upstream client: bytes in, bytes out. It alters nothing, repeats nothing, follows nothing, keeps no cookie."""
