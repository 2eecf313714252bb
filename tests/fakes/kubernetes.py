"""A Kubernetes API server that knows service accounts, and Vault's login with it.

Taken from published references:
- `POST /apis/authentication.k8s.io/v1/tokenreviews`: `spec.token`, `spec.audiences`; answered with
  201 and `status.authenticated`, `.user.username` (`system:serviceaccount:NAMESPACE:NAME`),
  `.user.uid`, `.audiences` (those of the request that the token has), or `.error`; 401 for a
  reviewer who is not known, 403 for one who may not:
  https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
- A projected token's claims (`iss`, `sub`, `aud`, `exp`, `iat`, `nbf`, `kubernetes.io`):
  https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
- What the login checks, in which order and with which status: `pathLogin`, `parseAndValidateJWT`,
  `serviceAccount.lookup` and `tokenReviewAPI.Review` in
  https://github.com/hashicorp/vault-plugin-auth-kubernetes/blob/v0.21.0/path_login.go and
  token_review.go: 400 for no role, no JWT and a role that is not there; 403 for an account, a
  namespace or an audience that the role does not have; and 403 "permission denied" for all that
  the review refuses.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import urllib3

from tests.fakes.httpd import Answered, Asked, answering
from tests.fakes.jwt import Issuer, unverified
from tests.fakes.vault_login import LoginRefusedError

ISSUER = "https://kubernetes.default.svc.cluster.local"
_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


class Cluster:
    """Service accounts, their tokens, and the reviews of these."""

    def __init__(self) -> None:
        self.reviewer: str = secrets.token_urlsafe(24)
        self.reviews: int = 0
        self.url: str = ""
        self._issuer = Issuer()
        self._accounts: dict[tuple[str, str], str] = {}

    def create_account(self, namespace: str, name: str) -> None:
        """Create a service account, with a uid of its own."""
        self._accounts[namespace, name] = secrets.token_hex(16)

    def delete_account(self, namespace: str, name: str) -> None:
        """Delete one; its tokens are good for nothing then."""
        del self._accounts[namespace, name]

    def new_token(
        self, namespace: str, name: str, *, audience: str = ISSUER, seconds: float = 3600
    ) -> str:
        """Return a token as the kubelet projects it into a pod."""
        now = int(time.time())
        uid = self._accounts.get((namespace, name), "none")
        return self._issuer.sign(
            {
                "iss": ISSUER,
                "sub": f"system:serviceaccount:{namespace}:{name}",
                "aud": [audience],
                "iat": now - 60,
                "nbf": now - 60,
                "exp": int(now + seconds),
                "kubernetes.io": {
                    "namespace": namespace,
                    "pod": {"name": "app-0", "uid": secrets.token_hex(16)},
                    "serviceaccount": {"name": name, "uid": uid},
                },
            }
        )

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve reviews at `url` as long as the block lasts."""
        with answering(self._answer) as self.url:
            yield

    def _answer(self, asked: Asked) -> Answered:
        if asked.method != "POST" or asked.path != _REVIEWS:
            return Answered(404, b'{"kind": "Status", "status": "Failure", "code": 404}')
        if asked.headers.get("authorization") != f"Bearer {self.reviewer}":
            return Answered(401, b'{"kind": "Status", "status": "Failure", "code": 401}')
        self.reviews += 1
        spec = json.loads(asked.body)["spec"]
        status = self._review(spec["token"], spec.get("audiences") or [ISSUER])
        review = {
            "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
            "spec": spec, "status": status,
        }  # fmt: skip
        return Answered(201, json.dumps(review).encode())

    def _review(self, token: str, wanted: list[str]) -> dict[str, object]:
        claims = self._issuer.claims(token)
        if claims is None:
            return {"user": {}, "error": "[invalid bearer token]"}
        place = cast("Mapping[str, Any]", claims["kubernetes.io"])
        account = place["namespace"], place["serviceaccount"]["name"]
        audiences = [each for each in wanted if each in cast("list[str]", claims["aud"])]
        if cast("int", claims["exp"]) < time.time():
            return {
                "user": {},
                "error": "[invalid bearer token, service account token has expired]",
            }
        if self._accounts.get(account) != place["serviceaccount"]["uid"]:
            return {"user": {}, "error": "[invalid bearer token, service account has been deleted]"}
        if not audiences:
            return {"user": {}, "error": "[invalid bearer token, token audiences is invalid]"}
        user = {"username": claims["sub"], "uid": place["serviceaccount"]["uid"]}
        return {"authenticated": True, "user": user, "audiences": audiences}


class Role(NamedTuple):
    """A role of the auth method: who may have it, and what it gives."""

    names: tuple[str, ...]
    namespaces: tuple[str, ...]
    policies: tuple[str, ...]
    audience: str | None = None


class KubernetesLogin:
    """What Vault does with a login: looks at the role, and asks the cluster."""

    def __init__(self, cluster: Cluster, roles: Mapping[str, Role]) -> None:
        self._cluster = cluster
        self._roles = roles

    def __call__(self, given: Mapping[str, Any]) -> list[str]:
        """Return the role's policies; raise `LoginRefusedError`."""
        for name in ("role", "jwt"):
            if not isinstance(given.get(name), str) or not given[name]:
                raise LoginRefusedError(400, f"missing {name}")
        role = self._roles.get(given["role"])
        if role is None:
            raise LoginRefusedError(400, f'invalid role name "{given["role"]}"')
        try:
            claims = unverified(given["jwt"])
        except ValueError:
            raise LoginRefusedError(403, "error parsing token") from None
        if role.audience is not None and role.audience not in cast("list[str]", claims["aud"]):
            raise LoginRefusedError(403, "invalid audience (aud) claim")
        place = cast("Mapping[str, Any]", claims["kubernetes.io"])
        account = place["serviceaccount"]
        if account["name"] not in role.names:
            raise LoginRefusedError(403, "service account name not authorized")
        if place["namespace"] not in role.namespaces:
            raise LoginRefusedError(403, "namespace not authorized")
        audiences = [role.audience] if role.audience else cast("list[str]", claims["aud"])
        user = self._reviewed(given["jwt"], audiences)
        _, _, namespace, name = user["username"].split(":")
        if (name, namespace, user["uid"]) != (account["name"], place["namespace"], account["uid"]):
            raise LoginRefusedError(403, "permission denied")
        return list(role.policies)

    def _reviewed(self, token: str, audiences: list[str]) -> dict[str, str]:
        answer = urllib3.request(
            "POST",
            self._cluster.url + _REVIEWS,
            body=json.dumps({"spec": {"token": token, "audiences": audiences}}),
            headers={"Authorization": f"Bearer {self._cluster.reviewer}"},
            retries=False,
        )
        status = json.loads(answer.data).get("status")
        if answer.status != 201 or not status.get("authenticated") or status.get("error"):
            raise LoginRefusedError(403, "permission denied")
        user: dict[str, str] = status["user"]
        return user
