"""Clearpane: a transparent LLM reverse proxy. What every part shares, and the command that puts them together."""

__version__ = "0.1.0"
