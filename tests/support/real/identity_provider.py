"""An identity provider as OpenID Connect has it, as far as a service that takes its tokens sees it."""

import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.support.real.http_services import Answer, HttpService, Request, json_answer

AUDIENCE = "slurm-proxy"


class IdentityProvider(HttpService):
    """Signs with keys of its own, and publishes their public halves at `/keys` (RFC 7517)."""

    def __init__(self) -> None:
        super().__init__()
        self.issuer = self.url
        self._keys: dict[str, Any] = {}
        self._published: dict[str, dict[str, Any]] = {}
        self.rotate("first")

    def rotate(self, kid: str) -> None:
        """From now on it signs with that key; the older ones are forgotten."""
        self._keys = {kid: rsa.generate_private_key(public_exponent=65537, key_size=2048)}
        public = RSAAlgorithm.to_jwk(self._keys[kid].public_key(), as_dict=True)
        self._published = {kid: {**public, "kid": kid, "use": "sig"}}

    def add_curve(self, kid: str) -> None:
        """A second key, on a curve."""
        self._keys[kid] = ec.generate_private_key(ec.SECP256R1())
        public = ECAlgorithm.to_jwk(self._keys[kid].public_key(), as_dict=True)
        self._published[kid] = {**public, "kid": kid, "use": "sig"}

    def take(self, request: Request) -> Answer:
        return (
            json_answer({"keys": list(self._published.values())}) if request.path == "/keys" else Answer(404)
        )

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Those of a good token for alice; a claim that is changed to None is left out."""
        now = int(time.time())
        good = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": "f81d4fae",
            "preferred_username": "alice",
            "iat": now,
            "exp": now + 300,
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(
        self,
        *,
        algorithm: str = "RS256",
        kid: str | None = None,
        published_as: str | None = None,
        **changes: Any,
    ) -> str:
        """Signed with the key `kid`; it may name another one."""
        kid = kid or next(iter(self._keys))
        headers = {"kid": published_as or kid}
        return jwt.encode(self.claims(**changes), self._keys[kid], algorithm, headers=headers)

    def forged(self) -> str:
        """Return a token signed with the public key as if that were a shared secret."""
        kid, key = next(iter(self._keys.items()))
        pem = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        head, body = ({"alg": "HS256", "typ": "JWT", "kid": kid}, self.claims())
        signed = b".".join(jwt.utils.base64url_encode(json.dumps(part).encode()) for part in (head, body))
        signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(signed, pem)
        return b".".join((signed, jwt.utils.base64url_encode(signature))).decode()

    def unsigned(self) -> str:
        return jwt.encode(self.claims(), "", "none", headers={"kid": next(iter(self._keys))})
