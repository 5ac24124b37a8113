from hypothesis import given
from hypothesis import strategies as st

from clearpane.contract.controls import CONTROLS
from proxy.control import PROPERTIES_MAX, VALUE_CHARS_MAX, read_controls


def test_both_families_mean_the_same_and_clearpane_wins() -> None:
    for control in CONTROLS:
        value = b"true" if control.form == "flag" else b"v"
        ours, theirs = (
            read_controls([(f"Clearpane-{control.name}".encode(), value)]),
            read_controls([(f"Helicone-{control.name}".encode(), value)]),
        )
        assert ours == theirs
        assert ours.texts or ours.flags
        assert not ours.ignored
    both = read_controls([(b"Clearpane-User-Id", b"ours"), (b"Helicone-User-Id", b"theirs")])
    assert both.text("user-id") == "ours"


def test_properties_in_small_letters() -> None:
    controls = read_controls([(b"Helicone-Property-Team", b"search"), (b"clearpane-property-feature-x", "Größe".encode())])
    assert controls.properties == {"team": "search", "feature-x": "Größe"}


def test_flags_need_the_word_true() -> None:
    assert read_controls([(b"Helicone-Omit-Request", b"true"), (b"Helicone-Omit-Response", b"false")]).omitted == ["request"]


def test_unknown_names_are_told_as_they_were_spelt() -> None:
    assert read_controls([(b"Helicone-Cache-Enabled", b"true"), (b"X-Other", b"1"), (b"Clearpane-Property-", b"x")]).ignored == [
        "Helicone-Cache-Enabled",
        "Clearpane-Property-",
    ]


def test_bounds() -> None:
    many = read_controls([(b"Clearpane-Property-P%d" % number, b"v") for number in range(PROPERTIES_MAX + 3)])
    assert len(many.properties) == PROPERTIES_MAX
    assert len(many.ignored) == 3
    assert len(read_controls([(b"Clearpane-User-Id", b"x" * 100_000)]).texts["user-id"]) == VALUE_CHARS_MAX


@given(st.lists(st.tuples(st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,30}", fullmatch=True), st.binary(max_size=40))))
def test_no_header_raises(headers: list[tuple[bytes, bytes]]) -> None:
    read_controls([(b"Clearpane-" + name, value) for name, value in headers])
