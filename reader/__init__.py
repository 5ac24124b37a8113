"""Readers of the lake: they look at calls/ and index/ and write to neither."""
