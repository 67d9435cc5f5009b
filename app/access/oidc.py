"""Tokens of the site's identity provider: signed JWTs of OpenID Connect.

Only asymmetric algorithms can be configured, and the algorithm is never taken from the token: a token can
neither be unsigned, nor signed with the provider's public key as a shared secret (RFC 8725).
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import jwt
from jwt.exceptions import (
    InvalidAudienceError,
    InvalidIssuerError,
    MissingRequiredClaimError,
    PyJWKClientConnectionError,
    PyJWTError,
)

from app.access.failed_attempts import FailedAttempts
from app.constants import Settings
from app.errors import IdentityProviderUnavailable, NotAuthenticated, SettingsError
from app.models.caller import ORDINARY_SCOPES, Caller, ClaimGrant, Grant
from app.models.username import is_username
from app.outages import RepeatFilter

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))  # each request with a token may meet the same outage

_MAX_QUEUE_SECONDS = 1.0  # that one caller waits while another asks the provider for keys
_KEY_LIFETIME_SECONDS = 300.0  # an unknown key is fetched sooner


class _ProviderKeys(jwt.PyJWKClient):
    """The keys that the provider signs tokens with.

    Known keys are found at once. While the provider does not answer, only one caller at a time waits for it.
    """

    _unavailable_until = 0.0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._fetching = threading.Lock()

    def get_signing_key(self, kid: str) -> jwt.PyJWK:
        """Return the key with that id.

        Raises:
            PyJWKClientConnectionError: The key is not known yet, and the provider does not answer now.
            PyJWKClientError: The provider has no such key.
        """
        known = self.jwk_set_cache.get() if self.jwk_set_cache else None
        if known is not None and (key := self.match_kid(known.keys, kid)) is not None:
            return key
        if not self._fetching.acquire(timeout=_MAX_QUEUE_SECONDS):
            raise PyJWKClientConnectionError("another request to it takes long")
        try:
            return super().get_signing_key(kid)
        finally:
            self._fetching.release()

    def fetch_data(self) -> Any:
        """Return the provider's set of keys.

        Raises:
            PyJWKClientConnectionError: The provider does not answer, or did not a moment ago.
        """
        if time.monotonic() < self._unavailable_until:
            raise PyJWKClientConnectionError("it did not answer a moment ago")
        try:
            return super().fetch_data()
        except (PyJWTError, OSError, ValueError, RecursionError) as error:  # the provider may answer anything
            self._unavailable_until = time.monotonic() + self.cooldown_duration
            raise PyJWKClientConnectionError(str(error)) from error


class OidcAuthenticator:
    """Authentication by tokens of one identity provider.

    The provider's keys are fetched when they are first needed, and again when a token has a new key.
    """

    def __init__(
        self,
        settings: Settings,
        grants: tuple[ClaimGrant, ...],
        *,
        timeout: float = 5.0,
        pause: float = 10.0,
    ) -> None:
        """Read the settings of the provider; no connection is opened yet.

        Args:
            settings: All settings; those named OIDC_* count.
            grants: OIDC_GRANTS, validated.
            timeout: How long the provider may take to send its keys, in seconds.
            pause: The least time between two requests for an unknown key, or after a failed one, in seconds.

        Raises:
            SettingsError: A setting of the provider is missing.
        """
        self._issuer, self._audience, url = _require_provider(settings)
        self._algorithms = list(settings.OIDC_ALGORITHMS)
        self._skew = settings.OIDC_CLOCK_SKEW_SECONDS
        self._user_claim = settings.OIDC_USER_CLAIM
        self._username_pattern = settings.TASK_USERNAME_PATTERN
        self._grants = grants
        self._refused_tokens = FailedAttempts(settings.LIMIT_FAILED_ATTEMPTS_PER_MINUTE)
        self._keys = _ProviderKeys(
            url, lifespan=_KEY_LIFETIME_SECONDS, timeout=timeout, cooldown_duration=pause
        )
        if not (self._user_claim or grants):
            raise SettingsError(
                "OIDC_USER_CLAIM or OIDC_GRANTS must be set: without them no token grants anything"
            )

    def authenticate(self, text: str) -> Caller:
        """Return the caller who has this token.

        Raises:
            NotAuthenticated: The token is not valid.
            IdentityProviderUnavailable: The token has an unknown key, and the provider does not answer.
        """
        claims = self._decode(text)
        user_claim = claims.get(self._user_claim) if self._user_claim else None
        name = user_claim or f"sub:{claims['sub']}"
        if not isinstance(name, str) or not name.isprintable():
            claim = self._user_claim if user_claim else "sub"
            raise NotAuthenticated(f"the token's claim {claim} must be printable text")
        return Caller(
            f"oidc:{name[:200]}", tuple(self._grants_for(claims, user_claim)), self._remark(user_claim)
        )

    def _decode(self, token: str) -> Mapping[str, Any]:
        """Return the claims of a token, after its signature has been checked.

        Raises:
            NotAuthenticated: The token is not valid.
            IdentityProviderUnavailable: The token cannot be checked now.
        """
        try:
            key = self._keys.get_signing_key_from_jwt(token)
            return jwt.decode(
                token,
                key.key,  # the bare key, because a PyJWK allows one algorithm only
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._skew,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except PyJWKClientConnectionError as error:
            logger.warning("the identity provider's keys cannot be fetched: %s", error)
            raise IdentityProviderUnavailable("the identity provider does not answer") from error
        except (
            PyJWTError,
            TypeError,
            ValueError,
        ) as error:  # the last two: a key of another kind than the token says
            if self._refused_tokens.count("tokens").is_logged:
                logger.info("a token was refused: %s", self._reason(error, token))
            raise NotAuthenticated(
                "the token is not valid: it is forged, expired, or for another service"
            ) from error

    def _reason(self, error: Exception, token: str) -> str:
        """Return why a token was refused, for an operator whose settings do not fit the provider."""
        if isinstance(error, InvalidAudienceError):
            claim, wanted = "aud", self._audience
        elif isinstance(error, InvalidIssuerError):
            claim, wanted = "iss", self._issuer
        elif isinstance(error, MissingRequiredClaimError):
            return f"it has no claim {error.claim}"
        else:
            return type(error).__name__
        found = jwt.decode(token, options={"verify_signature": False}).get(claim)
        return f"its {claim} is {str(found)[:200]!r}, not {wanted!r}"

    def _grants_for(self, claims: Mapping[str, Any], user_claim: object) -> Iterator[Grant]:
        """Yield the grant for the caller's own user, and those of the operator that fit the claims."""
        if self._is_user(user_claim):
            yield Grant(scopes=ORDINARY_SCOPES, users=(user_claim,))
        for grant in self._grants:
            if grant.matches(claims):
                yield grant.grant

    def _remark(self, user_claim: object) -> str:
        """Return a hint for callers whose user claim grants nothing; empty if it grants something."""
        if not self._user_claim or self._is_user(user_claim):
            return ""
        found = f"is {user_claim!r:.100}" if user_claim else "is missing or empty"
        remark = f"the token's claim {self._user_claim} {found}: it must be a user name of the cluster"
        logger.info("%s", remark)
        return remark

    def _is_user(self, claim: object) -> TypeGuard[str]:
        return is_username(claim, self._username_pattern)


def _require_provider(settings: Settings) -> tuple[str, str, str]:
    """Return issuer, audience and the URL of the keys.

    Raises:
        SettingsError: Some of them are not set; the message names each.
    """
    issuer, audience, url = settings.OIDC_ISSUER, settings.OIDC_AUDIENCE, settings.OIDC_JWKS_URL
    if issuer and audience and url:
        return issuer, audience, url
    names = {"OIDC_ISSUER": issuer, "OIDC_AUDIENCE": audience, "OIDC_JWKS_URL": url}
    missing = " and ".join(name for name, value in names.items() if not value)
    raise SettingsError(f"{missing} must be set where ACCESS_METHODS names oidc")
