"""A fake provider that speaks OpenAI and Anthropic over real HTTP, for `clearpane demo` and for tests.

Same request, same bytes. It counts one token per word, so that every number it states can be checked by
eye, and keeps a ledger of what it stated.
"""

from clearpane.cli.fake.ledger import Entry, Ledger
from clearpane.cli.fake.pace import Pace
from clearpane.cli.fake.server import FakeProvider

__all__ = ["Entry", "FakeProvider", "Ledger", "Pace"]
