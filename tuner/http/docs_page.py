"""GET /docs: the OpenAPI document as one plain page.

Swagger UI and ReDoc load scripts from another host; this page works offline and under a content
security policy without exceptions.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any

_METHODS = ("get", "post", "put", "delete")


def render(document: dict[str, Any]) -> str:
    """HTML of an OpenAPI document."""
    info = document["info"]
    sections = [
        _route(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in _METHODS
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(info['title'])} API</title>"
        '<link rel="stylesheet" href="/docs.css"></head><body><main>'
        f"<h1>{html.escape(info['title'])} <small>{html.escape(info['version'])}</small></h1>"
        f"{_text(info.get('description', ''))}"
        '<p><a href="/">Page</a> · <a href="/openapi.json">OpenAPI document</a></p>'
        f"{''.join(sections)}</main></body></html>"
    )


def _route(path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [
        f"<section><h2><code>{method.upper()} {html.escape(path)}</code> "
        f"{html.escape(operation.get('summary', ''))}</h2>",
        _text(operation.get("description", "")),
        _parameters(operation.get("parameters", [])),
    ]
    content = operation.get("requestBody", {}).get("content", {})
    for kind, body in content.items():
        if "example" in body:
            example = html.escape(json.dumps(body["example"], indent=2))
            parts.append(f"<h3>Body, {html.escape(kind)}</h3><pre>{example}</pre>")
    rows = "".join(
        f"<tr><td><code>{html.escape(str(code))}</code></td>"
        f"<td>{html.escape(answer.get('description', ''))}</td></tr>"
        for code, answer in operation.get("responses", {}).items()
    )
    parts.append(f"<h3>Answers</h3><table>{rows}</table></section>")
    return "".join(parts)


def _parameters(parameters: list[dict[str, Any]]) -> str:
    names = ", ".join(f"<code>{html.escape(item['name'])}</code>" for item in parameters)
    return f"<p>Query: {names}</p>" if names else ""


def _text(markdown: str) -> str:
    """Paragraphs, lists and code spans: all that our texts use."""
    blocks = []
    for block in markdown.strip().split("\n\n"):
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(block))
        if text.startswith("- "):
            items = "".join(f"<li>{item}</li>" for item in re.split(r"^- ", text, flags=re.M)[1:])
            blocks.append(f"<ul>{items}</ul>")
        elif text:
            blocks.append(f"<p>{text}</p>")
    return "".join(blocks)
