"""Control headers: what a caller says to the proxy, never to the upstream. Each has a Helicone name too."""

from dataclasses import dataclass
from typing import Literal

PREFIXES = ("clearpane-", "helicone-")
PROPERTY = "property-"  # Clearpane-Property-<Name>: value

# On every answer.
ID_HEADER = "Clearpane-Id"
IGNORED_HEADER = "Clearpane-Ignored"  # lists control headers that were not understood
TIMING_HEADER = "Server-Timing"

Form = Literal["text", "flag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control header: `Clearpane-<name>` and `Helicone-<name>` mean the same."""

    name: str
    form: Form
    meaning: str


CONTROLS = (
    Control(name="user-id", form="text", meaning="who the call is for; `user_id` on the record"),
    Control(name="session-id", form="text", meaning="groups calls into a session"),
    Control(name="session-path", form="text", meaning="place of the call in the session's tree, as `/a/b`"),
    Control(name="session-name", form="text", meaning="name of the session's kind"),
    Control(name="request-id", form="text", meaning="your own id of the call; `client_request_id` on the record"),
    Control(name="prompt-id", form="text", meaning="which prompt template the call uses"),
    Control(name="omit-request", form="flag", meaning="`true`: the request's body is not recorded"),
    Control(name="omit-response", form="flag", meaning="`true`: the answer's body is not recorded; usage still is"),
    Control(name="include-usage", form="flag", meaning="`true`: a streamed chat is asked for its usage, and the caller does not see it"),
)
