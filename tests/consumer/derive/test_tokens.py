"""Counting: the published encodings, found in the package, checked, without a network."""

import importlib.resources
import shutil
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.derive import prepare, tokens

# Counts that anyone can repeat with tiktoken.
KNOWN = [
    ("o200k_base", "The capital of France is Paris.", 7),
    ("cl100k_base", "tiktoken is great!", 6),
    ("o200k_base", "", 0),
    ("cl100k_base", "お誕生日おめでとう", 9),
    ("o200k_base", "お誕生日おめでとう", 8),
]


@pytest.mark.parametrize(("encoding", "text", "expected"), KNOWN)
def test_known_counts(encoding: str, text: str, expected: int) -> None:
    assert tokens.Counter(encoding).count(text) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o-2024-08-06", ("o200k_base", True)),
        ("gpt-4.1-mini", ("o200k_base", True)),
        ("gpt-5.4", ("o200k_base", True)),
        ("openai/o3", ("o200k_base", True)),
        ("ft:gpt-4o:acme:x:1", ("o200k_base", True)),
        ("gpt-4", ("cl100k_base", True)),
        ("gpt-4-turbo", ("cl100k_base", True)),
        ("gpt-35-turbo", ("cl100k_base", True)),
        ("text-embedding-3-large", ("cl100k_base", True)),
        ("claude-sonnet-4-5", ("o200k_base", False)),
        (None, ("o200k_base", False)),
    ],
)
def test_encoding_of_a_model(model: str | None, expected: tuple[str, bool]) -> None:
    assert tokens.encoding_of(model) == expected


@pytest.fixture
def fresh() -> None:
    tokens.load.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_loading_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("an encoding must not be fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert tokens.load("o200k_base").n_vocab > 199_000
    assert tokens.load("cl100k_base").n_vocab > 100_000


@pytest.mark.usefixtures("fresh")
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = Path(str(importlib.resources.files("consumer.derive") / "encodings"))
    shutil.copytree(published, tmp_path / "encodings")
    file = tmp_path / "encodings" / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
    damaged = file.read_bytes()[:-1]
    file.write_bytes(damaged)
    monkeypatch.setattr(tokens, "files", lambda package: tmp_path)
    with pytest.raises(tokens.EncodingDamaged, match="cl100k_base"):
        tokens.load("cl100k_base")
    assert file.read_bytes() == damaged
    assert tokens.load("o200k_base")


@pytest.mark.usefixtures("fresh")
def test_prepare_finds_a_damaged_file_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prepare().version.startswith("genai-prices ")
    tokens.load.cache_clear()
    (tmp_path / "encodings").mkdir()
    for file, *_ in tokens._KNOWN.values():
        (tmp_path / "encodings" / file).write_bytes(b"aGVsbG8= 0\n")
    monkeypatch.setattr(tokens, "files", lambda package: tmp_path)
    with pytest.raises(tokens.EncodingDamaged, match="install clearpane again"):
        prepare()


def test_the_notice_lies_beside_the_files() -> None:
    notice = (importlib.resources.files("consumer.derive") / "encodings" / "LICENSE").read_text(encoding="utf-8")
    assert "MIT License" in notice
    assert "OpenAI, Shantanu Jain" in notice


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["a", " ", "\n", "^", "aB", "漢", "\ud800", "1", "<|endoftext|>", "'s"])
def test_a_hostile_text_of_ten_million_characters_is_counted_in_time(text: str) -> None:
    assert tokens.Counter("o200k_base").count(*[text * (1_000_000 // len(text))] * 10) > 1000


def test_a_long_text_is_scaled_by_its_first_part() -> None:
    short = "hello world " * (tokens.TEXT_CHARS_MAX // 12)
    once = tokens.Counter("o200k_base").count(short)
    assert tokens.Counter("o200k_base").count(short * 10) == pytest.approx(10 * once, rel=0.001)
    assert tokens.Counter("o200k_base").count(*[short] * 10) == pytest.approx(10 * once, rel=0.001)


@given(st.lists(st.text(max_size=40), max_size=5))
def test_any_text_can_be_counted(texts: list[str]) -> None:
    assert tokens.Counter("cl100k_base").count(*texts) >= 0
