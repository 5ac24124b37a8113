"""Secrets: no key survives, no prose suffers, and no input makes it slow."""

import random
import string
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clearpane.contract import secrets
from clearpane.contract.secrets import (
    ALLOWED_REQUEST_HEADERS,
    ALLOWED_RESPONSE_HEADERS,
    credential_of,
    credentials_of,
    fingerprint,
    safe_headers,
    safe_target,
    safe_url,
    scrub,
)

DRAW = random.Random(20261121)


def chars(alphabet: str, count: int) -> str:
    return "".join(DRAW.choice(alphabet) for _ in range(count))


BASE62 = string.ascii_letters + string.digits
URL64 = BASE62 + "-_"
HEX = "0123456789abcdef"

# The forms as the providers hand them out; the random part is made here.
KEYS = {
    "openai-old": f"sk-{chars(BASE62, 20)}T3BlbkFJ{chars(BASE62, 20)}",
    "openai-project": f"sk-proj-{chars(URL64, 74)}T3BlbkFJ{chars(URL64, 74)}",
    "openai-service": f"sk-svcacct-{chars(URL64, 120)}",
    "anthropic": f"sk-ant-api03-{chars(URL64, 93)}AA",
    "openrouter": f"sk-or-v1-{chars(HEX, 64)}",
    "deepseek": "sk-7a0f" + chars(HEX, 28),
    "litellm": "sk-Zq3x9Lw-" + chars(BASE62, 12) + "9aB",
    "helicone": f"sk-helicone-{chars(string.ascii_lowercase, 7)}-{chars(BASE62, 7)}-{chars(BASE62, 7)}-{chars(BASE62, 7)}",
    "google": f"AIzaSy{chars(URL64, 33)}",
    "groq": f"gsk_{chars(BASE62, 52)}",
    "xai": f"xai-{chars(BASE62, 80)}",
    "huggingface": f"hf_{chars(string.ascii_letters, 34)}",
    "replicate": f"r8_{chars(BASE62, 37)}",
    "perplexity": f"pplx-{chars(BASE62, 48)}",
    "nvidia": f"nvapi-{chars(URL64, 64)}",
    "cerebras": f"csk-{chars(BASE62, 48)}",
    "openai-ephemeral": f"ek_{chars(HEX, 32)}",
    "together": f"tgp_v1_{chars(URL64, 43)}",
    "aws-id": f"AKIA{chars(string.ascii_uppercase + '234567', 16)}",
    "aws-temporary-id": f"ASIA{chars(string.ascii_uppercase + '234567', 16)}",
    "aws-session": f"IQoJb3JpZ2lu{chars(BASE62 + '/+', 400)}",
    "bedrock": f"ABSK{chars(BASE62 + '/+', 120)}",
    "github": f"ghp_{chars(BASE62, 36)}",
    "github-fine": f"github_pat_{chars(BASE62, 22)}_{chars(BASE62, 59)}",
    "jwt": f"eyJhbGciOiJSUzI1NiJ9.eyJ{chars(URL64, 120)}.{chars(URL64, 342)}",
    "google-oauth": f"ya29.{chars(URL64, 180)}",
}
PEM = "-----BEGIN RSA PRIVATE KEY-----\n" + "\n".join(chars(BASE62 + "+/", 64) for _ in range(12)) + "\n-----END RSA PRIVATE KEY-----"
AROUND = [
    "{}",
    "my key is {} , use it",
    '{{"role":"user","content":"{}"}}',
    '{{"content":"line\\n{}\\nline"}}',
    "Authorization: Bearer {}",
    "https://host/path?a=b&key={}&c=d",
    "q=%20{}%20",
    'curl -H "x-api-key: {}"',
    "\\u0022{}\\u0022",
    "`{}`",
    "OPENAI_API_KEY={}\nNEXT=1",
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_found_wherever_it_stands(name: str, around: str) -> None:
    scrubbed, count = scrub(around.format(KEYS[name]).encode())
    left = "ya29.[redacted]" if name == "google-oauth" else "[redacted]"
    assert (scrubbed.decode(), count) == (around.format(left), 1)


@pytest.mark.parametrize("escape", [lambda s: s, lambda s: s.replace("\n", "\\n"), lambda s: s.replace("\n", "\r\n")])
def test_a_private_key_goes_whole(escape: object) -> None:
    text = escape(f"before {PEM} after")  # type: ignore[operator]
    assert scrub(text.encode()) == (b"before [redacted] after", 1)
    cut = text[: text.index("-----END")].encode()
    assert scrub(cut)[0].startswith(b"before [redacted]")
    assert len(scrub(cut)[0]) < 24


def test_an_encrypted_private_key_goes_whole() -> None:
    headed = PEM.replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0123456789ABCDEF\n\n", 1)
    assert scrub(f"a {headed} b".encode()) == (b"a [redacted] b", 1)


def test_what_has_no_form_is_found_behind_its_label() -> None:
    azure, secret = chars(HEX, 32), chars(BASE62 + "/+", 40)
    for text, hidden in (
        (f"api-key: {azure}", azure),
        (f'{{"api_key": "{azure}"}}', azure),
        (f'{{\\"apiKey\\": \\"{azure}\\"}}', azure),
        (f"Ocp-Apim-Subscription-Key: {azure}", azure),
        (f"AZURE_OPENAI_API_KEY={chars(BASE62, 84)}", "="),
        (f"aws_secret_access_key = {secret}", secret),
        (f'"SecretAccessKey": "{secret}"', secret),
    ):
        scrubbed, count = scrub(text.encode())
        assert count == 1
        assert b"[redacted]" in scrubbed
        assert hidden == "=" or hidden.encode() not in scrubbed
    assert scrub(f"md5 {azure} and sha1 {chars(HEX, 40)}".encode())[1] == 0


PROSE = [
    "sk-learn sk-learn-contrib-package-names-with-dashes task-oriented-dialogue-systems-are-here risk-adjusted",
    "from huggingface_hub import hf_hub_download, hf_hub_url_with_a_very_long_name",
    "desk-1234567890123456789012345 and disk-ABCdef0123456789abcdefgh",
    "gsk_test hf_token r8_x pplx-sonar-large-online xai-grok AIza AKIA ASIA asia-southeast1-docker",
    "key: value, api_key=os.environ['OPENAI_API_KEY'], sk-..., sk-xxxxxxxxxxxxxxxxxxxxxxxx",
    "chatcmpl-CQ8tZ4u1Xw2Yk9Vb7Nc3Md5Le6 msg_01XFDUDYJgAACzvnptvVoYEL resp_67ccd2bed1ec8190b14f964abc054267",
    "call_Vn3fGq8sK2mZpR1tYw7xQe5a toolu_01A09q90qw90lq917835lq9 fp_44709d6fcb req_011CSHoEeqs5C35K2UUqR7Fy",
    "550e8400-e29b-41d4-a716-446655440000 d41d8cd98f00b204e9800998ecf8427e",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE----- the PRIVATE KEY----- block",
    "https://api.openai.com/v1/chat/completions?model=gpt-4o-mini-2024-07-18&stream=true",
    "eyJ is how JSON begins in base64: eyJmb28iOiAiYmFyIn0 and so on, eyJmb28iOiAiYmFyIn0.png",
]


@pytest.mark.parametrize("text", PROSE)
def test_prose_is_left_alone(text: str) -> None:
    assert scrub(text.encode()) == (text.encode(), 0)


def test_ten_thousand_ordinary_prompts_have_no_hit() -> None:
    words = [
        "the",
        "task",
        "of",
        "a",
        "risk-averse",
        "sk-learn",
        "user",
        "is",
        "to_be",
        "asked;",
        "key",
        "value",
        "hf_hub",
        "token-based",
        "pipeline",
        "/usr/lib/python3",
        "v1.2-beta",
    ]
    for _ in range(10_000):
        text = " ".join(DRAW.choice(words) for _ in range(30)).encode()
        assert scrub(text) == (text, 0)


def test_base64_of_an_image_is_left_alone() -> None:
    text = ('{"url":"data:image/png;base64,' + chars(BASE62 + "+/", 400_000) + '"}').encode()
    assert scrub(text) == (text, 0)


@given(before=st.binary(max_size=60), key=st.binary(min_size=8, max_size=60), after=st.binary(max_size=60))
def test_a_known_credential_never_survives(before: bytes, key: bytes, after: bytes) -> None:
    scrubbed, count = scrub(before + key + after, (key,))
    assert count >= 1
    assert key not in scrubbed or key in b"[redacted]" or b"[redacted]" in key or before + after  # replaced text may join into it
    assert scrub(b"|" + key + b"|", (key,))[0] == b"|[redacted]|"


def test_short_credentials_are_words() -> None:
    assert scrub(b"ollama runs llamas", (b"ollama",)) == (b"ollama runs llamas", 0)


@pytest.mark.parametrize("kept", [8, 20, 39])
def test_a_known_credential_cut_by_the_end_is_replaced(kept: int) -> None:
    key = chars(BASE62, 40).encode()
    assert scrub(b"echo " + key[:kept], (key,)) == (b"echo [redacted]", 1)
    assert scrub(b"echo " + key[:7], (key,)) == (b"echo " + key[:7], 0)


@given(data=st.binary(max_size=2000))
@example(b"sk-")
@example(b"-----BEGIN PRIVATE KEY-----")
@example(b"eyJ" * 30 + b"." + b"eyJ" * 30 + b".")
def test_any_bytes_are_scrubbed_once_and_for_all(data: bytes) -> None:
    scrubbed, count = scrub(data)
    assert (count == 0) == (scrubbed == data)
    assert scrub(scrubbed)[1] == 0


@given(st.lists(st.sampled_from([*KEYS.values(), PEM, " ", "-", "_", ".", '"', "sk-", "a" * 20, "\\n"]), max_size=12))
def test_keys_among_keys(parts: list[str]) -> None:
    scrubbed, _ = scrub(" ".join(parts).encode())
    assert not any(key.encode() in scrubbed for key in KEYS.values())


HOSTILE = {
    "prefixes": b"sk-",
    "words": b"ask-",
    "named": b"sk-ant-",
    "jwt heads": b"eyJ",
    "jwt dots": b"eyJaaaaaaaaaaaaaaaa.eyJaaaaaaaaaaaaaaaa ",
    "jwt chains": b"eyJaaaaaaaaaaaaa.",
    "private keys": b"-----BEGIN PRIVATE KEY-----",
    "private key heads": b"PRIVATE KEY-----Proc-Type: 4,E",
    "labels": b"api-key: ",
    "label and hex": b"api-key:0123456789abcdef0123456789abcdef,",
    "runs": b"aaaaaaaaaaaaaaaaaaaa ",
    "one run": b"a",
    "dashes": b"-",
    "every form": b"".join(b"sk-|AIza|gsk_|hf_|r8_|xai-|ghp_|AKIA|eyJ|".split(b"|")),
    "escapes": b"\\nsk-a1B2c3D4e5",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear_whatever_comes(name: str) -> None:
    def seconds(size: int) -> float:
        data = (HOSTILE[name] * (size // len(HOSTILE[name]) + 1))[:size]
        best = float("inf")
        for _ in range(3):
            started = time.thread_time()
            scrub(data, (b"a" * 40, b"sk-ant-" * 10))
            best = min(best, time.thread_time() - started)
        return best

    small, large = seconds(1 << 17), seconds(1 << 20)
    assert large < max(8 * small * 3, 0.05)  # eight times the data; a quadratic would take 64 times the processor time


def test_an_overlong_known_key_costs_no_more_than_its_bound() -> None:
    started = time.thread_time()
    scrub(b"a" * 65_000 + b"c", (b"a" * 65_000 + b"b",))
    assert time.thread_time() - started < 1.0


BEARER = (b"Authorization", b"Bearer sk-ant-secret-0123456789")


@pytest.mark.parametrize(
    ("headers", "query", "key"),
    [
        ([BEARER], b"", b"sk-ant-secret-0123456789"),
        ([(b"authorization", b"bearer  spaced-key")], b"", b"spaced-key"),
        ([(b"AUTHORIZATION", b"Basic dXNlcjpwYXNz")], b"", b"dXNlcjpwYXNz"),
        ([(b"Authorization", b"naked-key")], b"", b"naked-key"),
        ([(b"Authorization", b"Bearer ")], b"", None),
        ([(b"X-Api-Key", b"k1"), (b"api-key", b"k2")], b"", b"k1"),
        ([(b"api-key", b"k2")], b"key=k3", b"k2"),
        ([(b"x-goog-api-key", b"k4")], b"", b"k4"),
        ([], b"alt=sse&key=k5", b"k5"),
        ([], b"alt=sse&monkey=k6", None),
        (
            [(b"Authorization", b"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20261121/us-east-1, Signature=ab")],
            b"",
            b"AKIDEXAMPLE",
        ),
        ([(b"content-type", b"text/plain")], b"", None),
        ([(b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.sk-k7, openai-beta.realtime-v1")], b"", b"sk-k7"),
        ([(b"sec-websocket-protocol", b"xai-client-secret.a.b.c")], b"key=k8", b"a.b.c"),
        ([(b"sec-websocket-protocol", b"realtime, openai-beta.realtime-v1"), (b"Sec-WebSocket-Key", b"bm9uY2U=")], b"", None),
    ],
)
def test_the_key_of_a_caller(headers: list[tuple[bytes, bytes]], query: bytes, key: bytes | None) -> None:
    assert credential_of(headers, query) == key


def test_every_secret_of_a_request() -> None:
    headers = [
        BEARER,
        (b"Proxy-Authorization", b"Basic dXNlcjpwYXNzd29yZDE="),
        (b"Cookie", b"theme=dark; session=0123456789abcdefghij"),
        (b"Helicone-Auth", b"Bearer sk-helicone-aaaaaaa"),
        (b"X-Custom-Token", b"custom-token-value"),
        (b"Idempotency-Key", b"not-a-secret-at-all"),
        (b"X-Trace", b"not-a-secret-either"),
        (b"x-api-key", b"short"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Protocol", b"realtime, openai-insecure-api-key.sk-of-a-browser,openai-beta.realtime-v1"),
    ]
    assert set(credentials_of(headers, b"key=ab%2Fcdefgh&q=harmless-value")) == {
        b"sk-ant-secret-0123456789",
        b"dXNlcjpwYXNzd29yZDE=",
        b"password1",
        b"0123456789abcdefghij",
        b"sk-helicone-aaaaaaa",
        b"custom-token-value",
        b"ab%2Fcdefgh",
        b"ab/cdefgh",
        b"sk-of-a-browser",
    }


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"authorization", b"cookie", b"x-api-key", b"x-y-token", b"sec-websocket-protocol"]), st.binary(max_size=40)
        )
    ),
    st.binary(max_size=60),
)
def test_credentials_of_garbage_raise_nothing(headers: list[tuple[bytes, bytes]], query: bytes) -> None:
    credential_of(headers, query)
    found = credentials_of(headers, query)
    assert [len(key) for key in found] == sorted((len(key) for key in found), reverse=True)
    assert all(len(key) >= 8 for key in found)


def test_a_fingerprint_needs_the_pepper() -> None:
    assert fingerprint(b"key", b"pepper") == fingerprint(b"key", b"pepper")
    assert len({fingerprint(b"key", b"pepper"), fingerprint(b"key", b"salt"), fingerprint(b"kez", b"pepper")}) == 3
    assert len(fingerprint(b"", b"")) == 12
    # RFC 4231, test case 2
    assert fingerprint(b"what do ya want for nothing?", b"Jefe") == "5bdcc146bf60"


@pytest.mark.parametrize(
    ("target", "safe"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1beta/models/gemini:generateContent?key=AIzaX&alt=sse", "/v1beta/models/gemini:generateContent?key=[redacted]&alt=sse"),
        ("/x?KEY=a;Api_Key=b&api-key=c&access_token=d", "/x?KEY=[redacted];Api_Key=[redacted]&api-key=[redacted]&access_token=[redacted]"),
        (
            "/x?X-Amz-Signature=a&X-Amz-Security-Token=c&X-Amz-Date=d",
            "/x?X-Amz-Signature=[redacted]&X-Amz-Security-Token=[redacted]&X-Amz-Date=d",
        ),
        ("/x?%6bey=a", "/x?%6bey=[redacted]"),
        ("/x?sig=a=b==&q=%7B%22&key=", "/x?sig=[redacted]&q=%7B%22&key="),
        ("/x?monkey=1&keyboard=2&max_tokens=3&tokens=4&design=5", "/x?monkey=1&keyboard=2&max_tokens=3&tokens=4&design=5"),
        ("/key=abc?b", "/key=abc?b"),
        ("/x?key=secret#key=frag", "/x?key=[redacted]#key=[redacted]"),
        ("/x?a?key=1", "/x?a?key=[redacted]"),
    ],
)
def test_targets(target: str, safe: str) -> None:
    assert safe_target(target) == safe


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://api.openai.com/v1?key=a", "https://api.openai.com/v1?key=[redacted]"),
        ("https://user:pass@host:1/p?q=a@b", "https://[redacted]@host:1/p?q=a@b"),
        ("https://token@host/", "https://[redacted]@host/"),
        ("https://us@er:p@host/", "https://[redacted]@host/"),
        ("//user:pass@host/x", "//[redacted]@host/x"),
        ("https://host/a@b", "https://host/a@b"),
        ("https://host?x=//u:p@h", "https://host?x=//u:p@h"),
    ],
)
def test_urls(url: str, safe: str) -> None:
    assert safe_url(url) == safe


@given(st.text(max_size=80))
def test_any_target_without_a_secret_name_stays_byte_for_byte(target: str) -> None:
    for make in (safe_target, safe_url):
        safe = make(target)
        assert safe == target or "[redacted]" in safe


def test_headers_are_taken_by_name_only() -> None:
    raw = [
        (b"Content-Type", b"text/event-stream"),
        (b"X-RateLimit-Remaining-Requests", b"59"),
        (b"X-Ratelimit-Limit-Requests", b"60"),
        (b"anthropic-beta", b"a"),
        (b"Anthropic-Beta", b"b"),
        (b"set-cookie", b"c"),
        (b"authorization", b"d"),
        (b"x-api-key", b"e"),
    ]
    assert safe_headers(raw, ALLOWED_RESPONSE_HEADERS) == {
        "content-type": "text/event-stream",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-limit-requests": "60",
    }
    assert safe_headers(raw, ALLOWED_REQUEST_HEADERS) == {"content-type": "text/event-stream", "anthropic-beta": "a, b"}


def test_no_allowed_name_is_that_of_a_secret() -> None:
    for name in ALLOWED_REQUEST_HEADERS | ALLOWED_RESPONSE_HEADERS:
        assert name == b"idempotency-key" or not secrets._SECRET_HEADER.fullmatch(name)
        assert name == name.lower()
        assert b"*" not in name[:-1]
