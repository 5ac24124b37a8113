"""One request and its answer on the wire, at a model's pace; what was stated goes to the ledger."""

import hashlib

import orjson
from aiohttp import web

from clearpane.cli.fake import dialects
from clearpane.cli.fake.answer import Answer, Json
from clearpane.cli.fake.ledger import Entry, Ledger
from clearpane.cli.fake.pace import Pace, wait
from clearpane.cli.fake.refusal import Refusal


class Exchange:
    def __init__(self, request: web.Request, raw: bytes, ledger: Ledger, pace: Pace) -> None:
        self._request, self._raw, self._ledger, self._pace = request, raw, ledger, pace
        self._seed = hashlib.sha256(request.path.encode() + b"\n" + raw).hexdigest()
        self._request_id = f"req_{self._seed[:32]}"
        self.dialect = dialects.of(request.path, request.headers)

    def json(self, status: int, body: Json, headers: dict[str, str] | None = None) -> web.Response:
        """Compressed where the caller accepts it, as real providers do."""
        response = web.Response(status=status, body=orjson.dumps(body), headers={**self._headers(), **(headers or {})})
        response.content_type = "application/json"
        if "gzip" in self._request.headers.get("Accept-Encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response

    def refuse(self, refusal: Refusal) -> web.Response:
        self._enter(refusal.status)
        retry = {"retry-after-ms": "20", "retry-after": "1"} if refusal.status in (429, 529) else {}
        return self.json(refusal.status, self.dialect.error(refusal, self._request_id), retry)

    async def answer(self, answer: Answer) -> web.Response:
        await wait(self._pace.first_s(self._seed))
        await wait(sum(self._pace.token_s(self._seed, index) for index in range(answer.tokens.output)))
        self._enter(200, answer)
        return self.json(200, answer.body)

    async def stream(self, answer: Answer) -> web.StreamResponse:
        """One HTTP chunk per event. A caller who leaves is told nothing more, and the ledger says so."""
        headers = {**self._headers(), "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await wait(self._pace.first_s(self._seed))
        try:
            await response.prepare(self._request)
            for index, frame in enumerate(answer.frames):
                await wait(self._pace.token_s(self._seed, index) if frame.token else 0)
                await response.write(frame.data)
            await response.write_eof()
        except ConnectionError:
            self._enter(200, answer, delivered=False)
            return response
        self._enter(200, answer)
        return response

    def _headers(self) -> dict[str, str]:
        return {self.dialect.request_id_header: self._request_id, **self.dialect.headers(self._seed)}

    def _enter(self, status: int, answer: Answer | None = None, *, delivered: bool = True) -> None:
        stated = answer if answer is not None and delivered and answer.usage is not None else None
        self._ledger.add(
            Entry(
                id=answer.id if answer else None,
                request_id=self._request_id,
                path=self._request.path,
                model=answer.model.snapshot if answer else None,
                status=status,
                streamed=bool(answer and answer.frames),
                delivered=delivered,
                usage=stated.usage if stated else None,
                tokens=stated.tokens if stated else None,
                cost=stated.model.price.of(stated.tokens) if stated else None,
                request_sha256=hashlib.sha256(self._raw).hexdigest(),
                request_bytes=len(self._raw),
            )
        )
