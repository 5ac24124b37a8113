"""Provider families: how each form of API states its answer and its usage. One module each, all with the same five names.

    ask(body, path) -> Request              what was asked for
    prompt(body) -> Prompt                  the texts of the prompt, for an estimate
    fold(answer, document, event) -> None   one document of the answer into what is known
    leaves(stated) -> Leaves | None         the provider's counts in leaf buckets; raises Malformed
    NAME                                    the family, as the record shows it

Everything that speaks OpenAI's form (Mistral, Groq, DeepSeek, xAI, OpenRouter, Together, Fireworks, Perplexity, Cerebras,
Hugging Face's router, vLLM, Ollama's /v1, Azure ...) is one family: their additions have names of their own and do not collide.
"""

import re

from consumer.derive.families import (
    anthropic,
    batches,
    bedrock_converse,
    bedrock_invoke,
    cohere,
    embeddings,
    gemini,
    huggingface,
    moderations,
    ollama,
    openai_audio,
    openai_chat,
    openai_images,
    openai_responses,
    realtime,
    rerank,
    vertex_predict,
)
from consumer.derive.families.recognition import Family, of_answer
from consumer.derive.untrusted import Mapping

__all__ = ["Family", "choose", "silence"]

_BY_OPERATION: dict[str, Family] = {
    "chat": openai_chat,
    "completions": openai_chat,
    "responses": openai_responses,
    "embeddings": embeddings,
    "messages": anthropic,
    "generate_content": gemini,
    "embed_content": gemini,
    "cohere_chat": cohere,
    "ollama": ollama,
    "images": openai_images,
    "transcription": openai_audio,
    "speech": openai_audio,
}
# Here the path alone says the form: the answer's may look like another's.
_DECISIVE: dict[str, Family] = {"converse": bedrock_converse, "invoke": bedrock_invoke, "rerank": rerank, "moderations": moderations}
_DECISIVE_PATHS: tuple[tuple[re.Pattern[str], Family], ...] = (
    (re.compile(r"/realtime$|\.BidiGenerateContent$"), realtime),
    (re.compile(r"/messages/batches/[^/]+/results$|/files/[^/]+/content$|/files/[^/]+:download$|/v1(beta)?/batches/[^/:]+$"), batches),
)
# What the proxy does not name.
_BY_PATH: tuple[tuple[re.Pattern[str], Family], ...] = (
    (re.compile(r"/v[12]/(embed|chat)$"), cohere),
    (re.compile(r"/api/embeddings$"), ollama),
    (re.compile(r":predict$"), vertex_predict),
    (re.compile(r"/generate(_stream)?$"), huggingface),
)
_SILENT = {
    moderations.NAME: "moderations are not metered in tokens",
    rerank.NAME: "no tokens stated: billed by the search",
    openai_images.NAME: "no tokens stated: billed by the image",
    openai_audio.NAME: "no tokens stated: billed by the second or the character",
    realtime.NAME: "no response of the session states its usage",
    batches.NAME: "no result states its usage",
    vertex_predict.NAME: "no tokens stated",
}


def choose(operation: str | None, path: str, request: Mapping, documents: list[Mapping]) -> Family | None:
    """The answer's own form decides, then the operation, then the path, then the request's form. None: not one of ours."""
    plain = path.partition("?")[0]
    if found := _DECISIVE.get(operation or "") or _by_path(_DECISIVE_PATHS, plain):
        return found
    for document in documents[:8]:
        if found := of_answer(document):
            return found
    return _BY_OPERATION.get(operation or "") or _by_path(_BY_PATH, plain) or _of_request(request)


def silence(family: Family) -> str | None:
    """Why answers of this family may state no tokens, where counting what stands in them would say nothing."""
    return _SILENT.get(family.NAME)


def _by_path(patterns: tuple[tuple[re.Pattern[str], Family], ...], path: str) -> Family | None:
    return next((family for pattern, family in patterns if pattern.search(path)), None)


def _of_request(request: Mapping) -> Family | None:
    if "contents" in request:
        return gemini
    if "messages" in request and "model" in request:
        return anthropic if "anthropic_version" in request else openai_chat
    return None
