import pytest

from proxy.routes import BUILT_IN, NoRoute, Routes, operation_of

ROUTES = Routes("https://api.openai.com", {"corp": "http://10.0.0.1:8000/llm", "azure": "https://mine.openai.azure.com"})


@pytest.mark.parametrize(
    ("target", "name", "forwarded", "provider", "operation"),
    [
        ("/v1/chat/completions", "default", "/v1/chat/completions", "openai", "chat"),
        ("/openai/v1/responses?x=1", "openai", "/v1/responses?x=1", "openai", "responses"),
        ("/anthropic/v1/messages", "anthropic", "/v1/messages", "anthropic", "messages"),
        ("/corp/v1/embeddings", "corp", "/llm/v1/embeddings", None, "embeddings"),
        ("/gemini/v1beta/g:generateContent?alt=sse", "gemini", "/v1beta/g:generateContent?alt=sse", "gemini", "generate_content"),
        ("/azure/openai/deployments/d/embeddings?v=1", "azure", "/openai/deployments/d/embeddings?v=1", "azure", "embeddings"),
        ("/openai", "openai", "/", "openai", "other"),
        ("/openai?a=b", "openai", "/?a=b", "openai", "other"),
        ("/openai//double", "openai", "//double", "openai", "other"),
        ("/openai/v1/%7e%C3", "openai", "/v1/%7e%C3", "openai", "other"),
    ],
)  # fmt: skip
def test_a_path_goes_to_its_upstream_as_it_was_spelt(target: str, name: str, forwarded: str, provider: str | None, operation: str) -> None:
    route = ROUTES.find(target)
    assert (route.upstream.name, route.target, route.upstream.provider, route.operation) == (name, forwarded, provider, operation)


@pytest.mark.parametrize("target", ["http://evil.test/v1/x", "//evil.test/v1/x", "*", "", "v1/x", "/v1/x#fragment", "/unknown/v1/x", "/"])
def test_other_targets_have_no_route(target: str) -> None:
    with pytest.raises(NoRoute):
        ROUTES.find(target)


def test_an_upstream_without_url_says_what_to_do() -> None:
    with pytest.raises(NoRoute, match="--upstream azure=https"):
        Routes("https://api.openai.com", {}).find("/azure/x")


def test_every_built_in_name_that_has_a_url_has_a_route_and_a_provider() -> None:
    routes = Routes("http://127.0.0.1:1", {})
    for name, url in BUILT_IN.items():
        if url is not None:
            assert routes.find(f"/{name}/v1/x").upstream.provider == name
    assert routes.find("/v1/x").upstream.provider is None


@pytest.mark.parametrize(
    ("target", "operation"),
    [
        ("/v1/completions", "completions"),
        ("/v1/responses/resp_1", "responses"),
        ("/v1/messages/count_tokens", "count_tokens"),
        ("/model/m/converse-stream", "converse"),
        ("/v1/audio/speech/", "speech"),
        ("/v1/whatever", "other"),
        ("/v1/realtime?model=gpt-realtime", "realtime"),
        ("/openai/realtime?api-version=2025-04-01-preview&deployment=d", "realtime"),
        ("/openai/v1/realtime", "realtime"),
        ("/v1/realtime/client_secrets", "realtime"),
        ("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?key=k", "realtime"),
        ("/ws/google.ai.generativelanguage.v1alpha.GenerativeService.BidiGenerateContentConstrained", "realtime"),
        ("/ws/google.cloud.aiplatform.v1.LlmBidiService/BidiGenerateContent", "realtime"),
    ],
)
def test_operations(target: str, operation: str) -> None:
    assert operation_of(target) == operation


def test_a_lookalike_host_is_not_a_provider() -> None:
    for url in ("https://api.openai.com.evil.test", "https://notapi.openai.com.evil", "https://openai.azure.com.evil.test"):
        assert Routes(url, {}).find("/v1/x").upstream.provider is None
