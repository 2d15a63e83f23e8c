"""Secrets stay out of what people and machines read: logs, errors, pages, process titles."""

from __future__ import annotations

import re

HIDDEN = "***"
# user:password@ of a URL, to the last @ before the path; and options that drivers know.
_USERINFO = re.compile(r"(?<=://)[^/\s?#]*@")
_OPTION = re.compile(
    r"(?i)\b(password|passwd|passfile|sslpassword|sslkey|token|secret|api_?key)=[^&\s'\"]+"
)
_BEARER = re.compile(r"(?i)\bbearer\s+[^\s'\"]+")


def redact(text: object, *secrets: str) -> str:
    """`str(text)` without credentials of URLs, options, bearer tokens and without `secrets`."""
    public = str(text)
    for secret in secrets:
        if secret:
            public = public.replace(secret, HIDDEN)
    public = _USERINFO.sub(f"{HIDDEN}@", public)
    public = _OPTION.sub(lambda found: f"{found[1]}={HIDDEN}", public)
    return _BEARER.sub(f"Bearer {HIDDEN}", public)


def public_url(url: object) -> str:
    """A URL for people: with neither user nor password nor secret options."""
    render = getattr(url, "render_as_string", None)
    return redact(render(hide_password=True) if render is not None else url)
