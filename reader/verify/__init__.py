"""Proof of a lake: every log's chain, every object, every record, and the index against them. Reads only."""

from reader.verify.report import Finding, Report
from reader.verify.walk import verify

__all__ = ["Finding", "Report", "verify"]
