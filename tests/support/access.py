"""A service with callers of every kind, in this process."""

import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask

from app.access.keys import ApiKeys
from app.models.caller import ORDINARY_SCOPES, Grant, Scope
from tests.support.contract import Contract
from tests.support.fakes import FakeSlurm
from tests.support.real.identity_provider import AUDIENCE, IdentityProvider
from tests.support.tasks import make_task, new_uuid
from tests.support.web import KEY, make_app, settings_with_sqlite

ALICE = Grant(scopes=ORDINARY_SCOPES, users=("alice",))


class Site:
    """A server with authentication and a cluster in memory; its answers are compared with its document."""

    def __init__(self, path: Path, provider: IdentityProvider | None = None, **settings: Any) -> None:
        self.slurm: Any = FakeSlurm()
        self._path = path
        self._settings = {
            "NOTIFICATIONS_SMTP_SERVER": "mail.example.com",
            "ACCESS_METHODS": "keys",
            **(oidc_settings(provider) if provider else {}),
            **settings,
        }
        self.app = self.another()
        self.services = self.app.extensions["slurm_proxy"]
        self.client = self.app.test_client()
        self.contract = Contract(self.client.get("/openapi.json").json or {})
        self.keys: ApiKeys = self.services.keys

    def another(self) -> Flask:
        """Return the application as another process with the same store has it."""
        app = make_app(settings_with_sqlite(self._path, **self._settings), self.slurm)
        app.extensions["slurm_proxy"].store.prepare()
        return app

    def key(self, grant: Grant = ALICE, lasts: timedelta | None = None) -> str:
        return self.keys.create(f"key-{new_uuid()}", grant, lasts)[0]

    def call(self, method: str, path: str, proof: str | None = None, body: Any = None, **headers: str) -> Any:
        if proof is not None:
            headers["Authorization"] = f"Bearer {proof}"
        data = json.dumps(body) if body is not None else None
        answer = self.client.open(path, method=method, data=data, headers=headers)
        self.contract.check(method, path.partition("?")[0], answer)
        return answer

    def submit(self, proof: str | None = None, **fields: Any) -> Any:
        return self.call("POST", "/submit", proof, {"task": make_task(**fields)})


def oidc_settings(provider: IdentityProvider) -> dict[str, Any]:
    return {
        "ACCESS_METHODS": "keys,oidc",
        "OIDC_ISSUER": provider.issuer,
        "OIDC_AUDIENCE": AUDIENCE,
        "OIDC_JWKS_URL": f"{provider.url}/keys",
        "OIDC_USER_CLAIM": "preferred_username",
        "OIDC_GRANTS": [
            {"claim": "groups", "value": "operators", "grant": {"scopes": ["admin"], "users": "any"}}
        ],
    }


def proof(site: Site, provider: IdentityProvider, who: str) -> str | None:
    def key(*scopes: Scope, users: Any = ("alice",), lasts: timedelta | None = None) -> str:
        return site.key(Grant(scopes=frozenset(scopes or ORDINARY_SCOPES), users=users), lasts)

    now = int(time.time())
    match who:
        case "no key" | "no bearer":
            return None
        case "a wrong key":
            return key()[:-4] + "AAAA"
        case "half a key":
            return "sp_"
        case "an expired key":
            expired = key(lasts=timedelta(milliseconds=1))
            time.sleep(0.005)
            return expired
        case "a revoked key":
            revoked = key()
            assert site.keys.revoke(revoked.split("_")[1])
            return revoked
        case "another user's":
            return key(users=("bob",))
        case "a reader":
            return key(Scope.READ)
        case "a submitter":
            return key(Scope.SUBMIT)
        case "a canceller":
            return key(Scope.CANCEL)
        case "all for alice":
            return key()
        case "all for any":
            return key(users="any")
        case "a watcher":
            return key(Scope.MONITOR, users="any")
        case "an operator":
            return key(Scope.ADMIN, users="any")
        case "a good token":
            return provider.token()
        case "an operator's token":
            return provider.token(groups=["staff", "operators"])
        case "a token for bob":
            return provider.token(preferred_username="bob")
        case "a token for no user":
            return provider.token(preferred_username=None)
        case "another audience":
            return provider.token(aud="another-service")
        case "another issuer":
            return provider.token(iss="https://elsewhere.example")
        case "a forged algorithm":
            return provider.forged()
        case "an algorithm that is not taken":
            return provider.token(algorithm="RS512")
        case "no signature":
            return provider.unsigned()
        case "an expired token":
            return provider.token(iat=now - 900, exp=now - 300)
        case "a token of the future":
            return provider.token(nbf=now + 300)
        case "a token without an end":
            return provider.token(exp=None)
        case "an unknown key":
            stranger = IdentityProvider()
            stranger.rotate("a stranger's")
            stranger.issuer = provider.issuer
            return stranger.token()
        case "an altered token":
            head, _, signature = provider.token().split(".")
            body = provider.token(preferred_username="root").split(".")[1]
            return f"{head}.{body}.{signature}"
    raise AssertionError(who)


SETTINGS = {
    "PATH": "/usr/bin:/bin",
    "SLURM_REST_HOST": "http://127.0.0.1:9",
    "SLURM_JWT_HS256_KEY_BASE64": KEY,
    "FLASK_APP_PORT": "0",
}


def entries(trail: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in trail.read_text().splitlines()]
