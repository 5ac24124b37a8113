"""Upstreams over TLS: verified, by name, with a deadline; a certificate that does not fit is an error in words."""

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import ASK, SWITCH, WAIT_S, Proxy, Upstream

StartProxy = Callable[..., Awaitable[Proxy]]
POST = b"POST /secure/v1/chat/completions HTTP/1.1\r\nHost: p\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for `localhost` that nobody trusts unless told to; its key stands in the same file."""
    made = tmp_path / "localhost.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", tmp_path / "key.pem", "-out", made],
        check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "both.pem").write_bytes(made.read_bytes() + (tmp_path / "key.pem").read_bytes())
    return made


@pytest.fixture
async def secure(certificate: Path) -> AsyncIterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.parent / "both.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    found = Upstream()
    server = await asyncio.start_server(found.accept, "localhost", 0, ssl=context)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()
    await found.stop()


def reason_of(answer: bytes) -> tuple[bytes, str, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)["error"]
    return head[9:12], error["code"], error["message"]


async def test_a_verified_upstream_is_called_and_its_connection_kept(
    certificate: Path, secure: Upstream, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    proxy = await start_proxy(upstream={"secure": f"https://localhost:{secure.port}"})
    secure.answers(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nok\r\n", b"0\r\n\r\n", pause_s=0.01, keep=True)
    for _ in range(3):
        assert (await proxy.call(POST)).endswith(b"\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    assert secure.connections == 1
    assert b"Host: localhost:%d\r\n" % secure.port in secure.received[0]


async def test_a_certificate_that_nobody_vouches_for_is_refused(secure: Upstream, start_proxy: StartProxy) -> None:
    proxy = await start_proxy(upstream={"secure": f"https://localhost:{secure.port}"})
    status, reason, message = reason_of(await proxy.call(POST))
    assert (status, reason) == (b"502", "upstream_connect")
    assert "self-signed certificate" in message
    assert secure.received == []


async def test_a_certificate_for_another_name_is_refused(
    certificate: Path, secure: Upstream, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    proxy = await start_proxy(upstream={"secure": f"https://127.0.0.1:{secure.port}"})
    status, reason, message = reason_of(await proxy.call(POST))
    assert (status, reason) == (b"502", "upstream_connect")
    assert "127.0.0.1" in message


async def test_a_handshake_that_never_ends_is_a_504(upstream: Upstream, start_proxy: StartProxy) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    upstream.script = silent
    proxy = await start_proxy(upstream={"secure": f"https://localhost:{upstream.port}"}, connect_timeout_s=0.5)
    status, reason, _ = reason_of(await proxy.call(POST))
    assert (status, reason) == (b"504", "upstream_connect_timeout")


async def test_plain_http_where_tls_was_expected_is_refused(upstream: Upstream, start_proxy: StartProxy) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    upstream.script = plain
    proxy = await start_proxy(upstream={"secure": f"https://localhost:{upstream.port}"})
    status, reason, message = reason_of(await proxy.call(POST))
    assert (status, reason) == (b"502", "upstream_connect")
    assert "TLS with localhost" in message


@pytest.mark.parametrize("first", ["client", "upstream"])
@pytest.mark.parametrize("close", [b"\x88\x00", b""])
async def test_a_websocket_over_tls_ends_on_both_sides(
    first: str, close: bytes, certificate: Path, secure: Upstream, start_proxy: StartProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS knows no half of an end: who sees one ends the whole."""
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + b"\x81\x05hello")
        seen.put_nowait(await reader.readexactly(11))
        if first == "upstream":
            writer.write(close)
        else:
            seen.put_nowait(await reader.read(-1))

    secure.script = script
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    proxy = await start_proxy(upstream={"secure": f"https://localhost:{secure.port}"})
    reader, writer = await proxy.connect()
    writer.write(ASK.replace(b"GET /v1/", b"GET /secure/v1/"))
    await asyncio.wait_for(reader.readuntil(b"hello"), WAIT_S)
    writer.write(b"\x81\x85\0\0\0\0hello")
    assert await asyncio.wait_for(seen.get(), WAIT_S) == b"\x81\x85\0\0\0\0hello"
    if first == "client":
        writer.write(close)
        writer.write_eof()
        assert await asyncio.wait_for(seen.get(), 0.5) == close
    else:
        assert await asyncio.wait_for(reader.read(-1), 0.5) == close
    writer.close()
    end = "complete" if close else "client_disconnected" if first == "client" else "upstream_error"
    assert (await proxy.record())[0]["response"]["end"] == end
