"""`GET /catalogue`: the task names, without secrets."""

import pytest

from app.errors import Forbidden
from app.lifecycle.list_catalogue import CatalogueListing
from app.models.caller import OPERATOR, Caller, Grant, Scope
from app.models.catalogue_entry import CatalogueEntry

ENTRIES = {
    "generic": {"requires_command": True},
    "align": {
        "description": "Align reads.",
        "cmd": "bwa",
        "default_params": ["mem", "-t", "${threads}"],
        "slurm": {"mem": "4G"},
        "dirs": {"output": "/scratch/${username}"},
        "parameters": {"properties": {"threads": {"type": "integer", "default": 4}}},
        "notification": {
            "methods": ["webhook"],
            "params": {"webhook": {"url": "https://example.com/hook?token=secret"}},
        },
    },
}


@pytest.fixture
def listing() -> CatalogueListing:
    return CatalogueListing({name: CatalogueEntry.model_validate(entry) for name, entry in ENTRIES.items()})


def test_the_catalogue_is_listed_in_the_operators_order(listing: CatalogueListing) -> None:
    generic, align = listing.list_all(OPERATOR).model_dump(mode="json")["catalogue"]
    assert generic == {
        "name": "generic",
        "description": None,
        "cmd": None,
        "default_params": [],
        "requires_command": True,
        "slurm": None,
        "dirs": None,
        "parameters": None,
        "notification_methods": [],
    }
    assert align == {
        "name": "align",
        "description": "Align reads.",
        "cmd": "bwa",
        "default_params": ["mem", "-t", "${threads}"],
        "requires_command": False,
        "slurm": {"mem": "4G"},
        "dirs": {"output": "/scratch/${username}"},
        "parameters": {
            "type": "object",
            "properties": {"threads": {"type": "integer", "default": 4}},
            "additionalProperties": False,
        },
        "notification_methods": ["webhook"],
    }


def test_the_catalogue_shows_no_parameters_of_notifications(listing: CatalogueListing) -> None:
    shown = listing.list_all(OPERATOR).model_dump_json()
    assert "secret" not in shown
    assert "example.com" not in shown


def test_a_caller_who_may_not_submit_sees_no_catalogue(listing: CatalogueListing) -> None:
    reader = Caller("reader", (Grant(scopes=frozenset({Scope.READ, Scope.ADMIN}), users="any"),))
    with pytest.raises(Forbidden, match="reader has no grant with the scope submit"):
        listing.list_all(reader)
