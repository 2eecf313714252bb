"""A WSGI application: one piece of work for each request. With WARM=1 keys are cached at import."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any

from tests.life.work import acme, work

if os.environ.get("WARM"):
    acme.encrypt(b"before the workers are forked")


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer with what the work took; the query is a message to open."""
    answer = json.dumps(work(environ["QUERY_STRING"])).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    start_response("200 OK", headers)
    return [answer]
