"""Bedrock's InvokeModel and InvokeModelWithResponseStream: the body is in the form of the model's maker.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html ; Anthropic, Nova (as Converse), Llama, Titan,
Cohere, Mistral and what speaks OpenAI's form. Counts stand in the body, else in the metrics that Bedrock adds to a stream's last
chunk (`amazon-bedrock-invocationMetrics`), else in the answer's headers. In both of Bedrock's, cache reads and writes stand
beside the input's, as the makers have it whose bodies these are.
"""

from consumer.derive.answer import Answer, Choice
from consumer.derive.families import anthropic, bedrock_converse, openai_chat
from consumer.derive.families.bedrock_converse import model_of
from consumer.derive.request import Prompt, Request, Turn, params
from consumer.derive.untrusted import Mapping, count, items, mapping, mappings, short, text
from consumer.derive.usage import Leaves

NAME = "bedrock_invoke"

_METRICS = "amazon-bedrock-invocationMetrics"
_NAMES = ("inputTokenCount", "outputTokenCount", "cacheReadInputTokenCount", "cacheWriteInputTokenCount")
_HEADERS = dict(
    zip(
        (f"x-amzn-bedrock-{name}-token-count" for name in ("input", "output", "cache-read-input", "cache-write-input")),
        _NAMES,
        strict=True,
    )
)
_NOVA = ("messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "output")


def ask(body: Mapping, path: str) -> Request:
    config = mapping(body.get("textGenerationConfig") or body.get("inferenceConfig"))  # Titan; Nova
    asked = anthropic.ask(body, path)
    asked.params |= params(
        config,
        max_tokens=config.get("maxTokenCount") or config.get("maxTokens") or body.get("max_gen_len") or body.get("max_tokens"),
        top_p=config.get("topP") or body.get("top_p") or body.get("p"),
    )
    asked.model = model_of(path)
    asked.stream = path.partition("?")[0].endswith("-stream")
    return asked


def fold(answer: Answer, document: Mapping, event: str) -> None:
    if event.endswith(("Exception", "Error")) or document.keys() == {"message"}:
        bedrock_converse.fail(answer, event, document)
        return
    if isinstance(document.get(_METRICS), dict):
        answer.understood = True
        answer.state({_METRICS: document[_METRICS]})
    if "choices" in document and not _is_plain(document):
        openai_chat.fold(answer, document, event)
    elif isinstance(document.get("type"), str):
        anthropic.fold(answer, document, event)
    elif any(name in document for name in _NOVA):
        bedrock_converse.fold(answer, document, event)
    else:
        _fold_plain(answer, document)
    # What Bedrock bills is the id in the path; a maker's own name for the model says less.
    answer.model, answer.model_version = None, answer.model or answer.model_version


def _is_plain(document: Mapping) -> bool:
    """DeepSeek's completions: choices of text that say `stop_reason`, no usage."""
    return any("stop_reason" in each for each in mappings(document["choices"]))


def _fold_plain(answer: Answer, document: Mapping) -> None:
    """Llama; Titan; Mistral, Cohere and DeepSeek; embeddings."""
    choice = answer.choice(0)
    answer.state({name: document[name] for name in ("prompt_token_count", "generation_token_count") if name in document})
    if isinstance(document.get("inputTextTokenCount"), int):
        answer.state({"inputTextTokenCount": document["inputTextTokenCount"]})
    answer.add(choice.text, document.get("generation") or document.get("outputText") or document.get("completion"))
    if isinstance(document.get("totalOutputTextTokenCount"), int):
        answer.state({"outputTextTokenCount": document["totalOutputTextTokenCount"]})
    for part in ("results", "outputs", "generations", "choices"):
        for position, each in enumerate(mappings(document.get(part))):
            _fold_part(answer, answer.choice(position), each)
    if "chat_history" in document or "is_finished" in document or "generation_id" in document:  # Cohere
        answer.add(choice.text, document.get("text"))
    answer.finish(choice, _reason(document))
    answer.understood = answer.understood or answer.generated > 0 or answer.stated is not None
    if "embedding" in document or "embeddings" in document or "embeddingsByType" in document:
        answer.understood = answer.finished = True


def _fold_part(answer: Answer, choice: Choice, part: Mapping) -> None:
    answer.add(choice.text, part.get("outputText") or part.get("text"))
    answer.finish(choice, _reason(part))
    if isinstance(part.get("tokenCount"), int):
        before = mapping(answer.stated).get("outputTextTokenCount")
        answer.state({"outputTextTokenCount": part["tokenCount"] + (before if isinstance(before, int) else 0)})


def _reason(source: Mapping) -> str | None:
    return short(source.get("stop_reason") or source.get("completionReason") or source.get("finish_reason"))


def fold_headers(answer: Answer, headers: Mapping) -> None:
    """Counts in the headers of an answer that is not streamed; decimal texts."""
    found = {name: int(value) for header, name in _HEADERS.items() if (value := text(headers.get(header))) and _is_count(value)}
    if found:
        answer.state({"headers": found})
        answer.understood = True


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 12


def leaves(stated: Mapping) -> Leaves | None:
    found = anthropic.leaves(stated) or bedrock_converse.leaves(stated) or openai_chat.leaves(stated) or _plain_leaves(stated)
    return found or _counted(mapping(stated.get(_METRICS))) or _counted(mapping(stated.get("headers")))


def _plain_leaves(stated: Mapping) -> Leaves | None:
    given = count(stated, "prompt_token_count"), count(stated, "inputTextTokenCount")
    made = count(stated, "generation_token_count"), count(stated, "outputTextTokenCount")
    if given == made == (None, None):
        return None
    return Leaves(input_tokens=given[0] or given[1] or 0, output_tokens=made[0] or made[1] or 0)


def _counted(stated: Mapping) -> Leaves | None:
    if not any(name in stated for name in _NAMES):
        return None
    given, made, read, written = (count(stated, name) or 0 for name in _NAMES)
    return Leaves(input_tokens=given, output_tokens=made, cache_read_tokens=read, cache_write_5m_tokens=written)


def prompt(body: Mapping) -> Prompt:
    if "messages" in body:
        return bedrock_converse.prompt(body) if "schemaVersion" in body or "inferenceConfig" in body else anthropic.prompt(body)
    given = [body.get("prompt"), body.get("inputText"), body.get("message"), *items(body.get("texts"))]
    texts = [piece for piece in given if isinstance(piece, str)]
    return Prompt([Turn(texts)], uncounted=not texts, chat=False)
