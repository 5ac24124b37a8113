import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearpane import settings as configuration
from clearpane.forms import Malformed
from clearpane.settings import Settings, SettingsError, load


def test_flags_win_over_variables_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('listen = "127.0.0.1:1"\nworkers = 2\ntopic = "of.file"\n[upstream]\na = "http://a.test"\n')
    environ = {"CLEARPANE_LISTEN": "127.0.0.1:2", "CLEARPANE_WORKERS": "3", "CLEARPANE_UPSTREAM": "b=http://b.test"}
    found = load({"listen": "127.0.0.1:3", "upstream": ["c=http://c.test"]}, environ, file)
    assert (found.listen, found.workers, found.topic) == ("127.0.0.1:3", 3, "of.file")
    assert found.upstream == {"a": "http://a.test", "b": "http://b.test", "c": "http://c.test"}


def test_all_problems_at_once_with_place_key_and_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('listn = "x"\nworkers = 0\ncapture_bytes_max = "8 parsecs"\n')
    environ = {"CLEARPANE_INTAKE_SECRET": "hunter2", "CLEARPANE_NO_SUCH": "1"}
    with pytest.raises(SettingsError) as raised:
        load({"default_upstream": "ftp://x"}, environ, file)
    text = str(raised.value)
    assert len(raised.value.problems) == 6
    for part in (
        f"{file}: listn: no such setting",
        f"{file}: workers: 0: needs a whole number, 1 to 256",
        "as 8388608 or 8MiB",
        "CLEARPANE_INTAKE_SECRET: (not shown)",
        "CLEARPANE_NO_SUCH: no such setting",
        "--default-upstream: 'ftp://x': needs http(s)://",
    ):
        assert part in text
    assert "hunter2" not in text


def test_a_file_that_is_not_there_or_no_toml_is_a_problem(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("a = = b")
    for file in (tmp_path / "missing.toml", broken):
        with pytest.raises(SettingsError, match="cannot be read"):
            load({}, {}, file)


@pytest.mark.parametrize(
    "variable",
    [
        "CLEARPANE_SERVICE_HOST",
        "CLEARPANE_PROXY_SERVICE_PORT_HTTP",
        "CLEARPANE_PORT",
        "CLEARPANE_PORT_8080_TCP_ADDR",
        "CLEARPANE_X_PORT_80_TCP",
    ],
)
def test_what_kubernetes_puts_into_a_pod_is_no_setting(variable: str) -> None:
    assert load({}, {variable: "tcp://10.0.0.1:80"}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("upstream", "v1=http://x"),
        ("upstream", "Bad Name=http://x"),
        ("upstream", "a=http://user:secret@x"),
        ("default_upstream", "https://"),
        ("default_upstream", "https://x?key=1"),
        ("listen", "8080"),
        ("listen", "host:99999"),
        ("lake", "gs://bucket"),
        ("lake", "s3://"),
        ("intake", "http://host"),
        ("intake", "http://host:1/path"),
        ("topic", "no spaces"),
        ("kafka", "broker"),
        ("workers", "two"),
        ("flush_seconds", "nan"),
        ("spool_only", "maybe"),
    ],
)
def test_malformed_values_are_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError):
        load({name: value}, {})


@given(
    st.sampled_from(sorted(configuration.fields())),
    st.text() | st.integers() | st.floats() | st.booleans() | st.lists(st.text()) | st.none(),
)
def test_a_form_raises_nothing_but_malformed(name: str, value: object) -> None:
    with contextlib.suppress(Malformed):
        configuration.fields()[name].metadata["form"](value)
