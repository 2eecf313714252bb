"""A web application with many tenants: their notes, each encrypted under its tenant's own key.

Needs FastAPI. Two variables say where things are: `NOTES_DATABASE`, and `NOTES_TOKENS`, a file of
JSON that says who has which token. With any ASGI server:

    uvicorn --factory notes_app:from_environment
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from notes_store import Notes, place
from pydantic import BaseModel

import sentra_kms
from sentra_kms import KMS, KMSError

logger = logging.getLogger("notes")

_STATUS: tuple[tuple[type[KMSError], int], ...] = (
    (sentra_kms.NotFound, 404),
    (sentra_kms.AlreadyExists, 409),
    (sentra_kms.KeyUnavailable, 409),
    (sentra_kms.MalformedInput, 400),
    (sentra_kms.Conflict, 503),
    (sentra_kms.ServiceUnavailable, 503),
)
"""What the errors of sentra_kms are to a browser; all others are ours to look into: 500."""


class User(BaseModel):
    """Who asks: a user of one tenant, or a super admin of all, who reads no notes."""

    name: str
    tenant: str | None = None
    super_admin: bool = False


class Note(BaseModel):
    """A note as it travels."""

    text: str


class Rotated(BaseModel):
    """The key version that encrypts from now on."""

    tenant: str
    version: int | None


@dataclass(frozen=True)
class Site:
    """What the endpoints work with; `users` are found by the SHA-256 of their token, in hex."""

    kms: KMS
    notes: Notes
    users: Mapping[str, User]


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def _user(site: Here, authorization: Annotated[str, Header()] = "") -> User:
    scheme, _, token = authorization.partition(" ")
    found = site.users.get(hashlib.sha256(token.encode()).hexdigest())
    if scheme.lower() != "bearer" or found is None:
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
    return found


def _member(tenant: str, user: Annotated[User, Depends(_user)]) -> User:
    if user.tenant != tenant:
        raise HTTPException(403)
    return user


def _super_admin(user: Annotated[User, Depends(_user)]) -> User:
    if not user.super_admin:
        raise HTTPException(403)
    return user


Here = Annotated[Site, Depends(_site)]
Member = Annotated[User, Depends(_member)]
SuperAdmin = Annotated[User, Depends(_super_admin)]
router = APIRouter(prefix="/api/v1/tenants/{tenant}")

# Functions and not coroutines, so that each runs in a thread: a key that is not cached is asked for
# in a key service, which takes its time.


@router.put("/notes/{note}", status_code=204)
def put_note(tenant: str, note: str, body: Note, site: Here, user: Member) -> None:
    """Encrypt a note for its row, and keep it."""
    with sentra_kms.actor(f"user:{user.name}"):
        message = site.kms.keys.encrypt(tenant, body.text.encode(), place(tenant, note))
    site.notes.put(tenant, note, message)


@router.get("/notes/{note}")
def get_note(tenant: str, note: str, site: Here, user: Member) -> Note:
    """Decrypt a note, if it is this row's."""
    message = site.notes.get(tenant, note)
    if message is None:
        raise HTTPException(404)
    with sentra_kms.actor(f"user:{user.name}"):
        return Note(text=site.kms.keys.decrypt(tenant, message, place(tenant, note)).decode())


@router.put("", status_code=204)
def create_tenant(tenant: str, site: Here, user: SuperAdmin) -> None:
    """Make a tenant's key ring; nothing else makes one."""
    with sentra_kms.actor(f"user:{user.name}"):
        site.kms.keys.create(tenant, exist_ok=True)


@router.post("/rotate-key")
def rotate_key(
    tenant: str,
    site: Here,
    user: SuperAdmin,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> Rotated:
    """Make a new key version; with an idempotency key a retry makes no second one."""
    with sentra_kms.actor(f"user:{user.name}", request_id=idempotency_key):
        ring = site.kms.keys.rotate(tenant, request_id=idempotency_key)
    return Rotated(tenant=tenant, version=ring.primary)


def create_app(site: Site) -> FastAPI:
    """Return the application."""
    app = FastAPI(title="Notes")
    app.state.site = site
    app.include_router(router)
    app.add_exception_handler(KMSError, _answer)
    return app


def _answer(request: Request, error: Exception) -> Response:
    """Tell the browser the kind of error; its message, which holds no secret, is for the log."""
    assert isinstance(error, KMSError)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    logger.warning("%s %s: %s: %s", request.method, request.url.path, type(error).__name__, error)
    headers = {"Retry-After": "5"} if error.retryable else None
    return JSONResponse({"error": type(error).__name__}, status, headers)


def from_environment() -> FastAPI:
    """Return the application of this process, with the configuration that sentra_kms finds."""
    users = json.loads(Path(os.environ["NOTES_TOKENS"]).read_text(encoding="utf-8"))
    return create_app(
        Site(
            sentra_kms.load(),
            Notes(Path(os.environ["NOTES_DATABASE"])),
            {digest: User(**fields) for digest, fields in users.items()},
        )
    )
