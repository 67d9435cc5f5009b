"""What the operator grants to those whom the identity provider says something of."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.models.caller import Grant
from app.models.rules import Line


class ClaimGrant(BaseModel):
    """`grant` goes to every caller whose `claim` is `value`, or holds it in its list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: Line
    value: Line
    grant: Grant

    def fits(self, claims: Mapping[str, Any]) -> bool:
        found = claims.get(self.claim)
        return found == self.value or (isinstance(found, list) and self.value in found)
