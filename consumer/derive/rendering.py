"""Tools and response formats as the text that OpenAI's models are given: TypeScript in a namespace, a JSON schema under a heading.

The form is the published one of its open models, https://github.com/openai/harmony ; older models have it but for details.
"""

from collections.abc import Iterator

from consumer.derive.untrusted import Mapping, dumps, items, mapping, mappings, text

NESTING_MAX = 24

_HEADING = "# Tools\n\n## functions\n\n"
_TYPES = {
    "object": "object",
    "integer": "number",
    "number": "number",
    "string": "string",
    "boolean": "boolean",
    "null": "null",
}


def tools(functions: list[Mapping], *, heading: bool) -> str:
    """Each {name, description, parameters}. `heading`: as the newer models have it, every line of a description a comment."""
    shown = "".join(f"{_tool(each, commented=heading)}\n\n" for each in functions)
    return f"{_HEADING if heading else ''}namespace functions {{\n\n{shown}}} // namespace functions"


def response_format(name: str, description: str, schema: Mapping) -> str:
    return f"# Response Formats\n\n## {name}\n\n{f'// {description}' if description else ''}\n{dumps(schema)}"


def properties(schema: Mapping) -> Mapping:
    return mapping(schema.get("properties"))


def _tool(function: Mapping, *, commented: bool) -> str:
    name, parameters = text(function.get("name")) or "", mapping(function.get("parameters"))
    described = text(function.get("description")) or ""
    lines = described.split("\n") if commented else [described]
    comment = "".join(f"// {line}\n" for line in lines) if described else ""
    if not properties(parameters):
        return f"{comment}type {name} = () => any;"
    about = text(parameters.get("description"))
    return f"{comment}type {name} = (_: {f'// {about}{chr(10)}' if about else ''}{_object(parameters, NESTING_MAX)}) => any;"


def _object(schema: Mapping, depth: int) -> str:
    return "{\n" + "".join(_properties(schema, depth)) + "}"


def _properties(schema: Mapping, depth: int) -> Iterator[str]:
    required = {name for name in items(schema.get("required")) if isinstance(name, str)}
    for name, value in properties(schema).items():
        found = mapping(value)
        if described := text(found.get("description")):
            yield f"// {described}\n"
        default = f" // default: {dumps(found['default'])}" if isinstance(found.get("default"), str | int | float) else ""
        yield f"{name}{'' if name in required else '?'}: {_type(found, depth - 1)},{default}\n"


def _type(schema: Mapping, depth: int) -> str:
    """`any` for what has no type, is nested too deep, or is a reference: the models are given no more."""
    if depth <= 0:
        return "any"
    if options := mappings(schema.get("anyOf")) or mappings(schema.get("oneOf")):
        return " | ".join(_type(option, depth - 1) for option in options)
    if values := items(schema.get("enum")):
        return " | ".join(dumps(value) for value in values)
    stated = schema.get("type")
    kinds = dict.fromkeys(kind for kind in items(stated) or [stated] if isinstance(kind, str))
    return " | ".join(_plain(schema, kind, depth) for kind in list(kinds)[: len(_TYPES) + 1]) or "any"


def _plain(schema: Mapping, kind: str, depth: int) -> str:
    if kind == "array":
        return f"{_type(mapping(schema.get('items')), depth - 1)}[]"
    if kind == "object" and properties(schema):
        return _object(schema, depth)
    return _TYPES.get(kind, "any")
