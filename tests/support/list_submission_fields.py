"""List the fields of a job description that each API version of a slurmrestd knows.

    python -m tests.support.list_submission_fields DOCUMENT...
    python -m tests.support.list_submission_fields --url URL --key-file KEY_FILE [--user alice]

A DOCUMENT is a file with what slurmrestd answers to `GET /openapi/v3`, plain or compressed by gzip. With URL,
a slurmrestd that runs is asked for the document; KEY_FILE is the file that `jwt_key` in slurm.conf names.

tests/unit/slurm/submission_fields.json gets the names of the fields of the supported API versions that the
documents have. Its lists of other API versions are kept.
tests/unit/slurm/test_submission_fields.py holds each option against the file.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Any

import requests

from app.slurm.dialect import SUPPORTED_API_VERSIONS
from app.slurm.tokens import TokenMint

FIELDS = Path(__file__).parents[1] / "unit" / "slurm" / "submission_fields.json"


def list_fields(document: dict[str, Any], api: str) -> list[str] | None:
    """Return the fields of the job in `POST /slurm/<api>/job/submit`; None if there is no such route."""
    route = document["paths"].get(f"/slurm/{api}/job/submit")
    if route is None:
        return None
    body = route["post"]["requestBody"]["content"]["application/json"]["schema"]
    job = _resolve(document, _resolve(document, body)["properties"]["job"])
    return sorted(job["properties"])


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema["$ref"].removeprefix("#/components/schemas/")
    found: dict[str, Any] = document["components"]["schemas"][name]
    return found


def read_document(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    document: dict[str, Any] = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    return document


def fetch_document(url: str, key: bytes, user: str) -> dict[str, Any]:
    answer = requests.get(f"{url}/openapi/v3", headers=TokenMint(key, 300).make_headers(user), timeout=30)
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("documents", nargs="*", type=Path, metavar="DOCUMENT")
    parser.add_argument("--url")
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--user", default="alice")
    given = parser.parse_args()
    documents = [read_document(path) for path in given.documents]
    if given.url:
        documents.append(fetch_document(given.url, given.key_file.read_bytes(), given.user))
    lists = json.loads(FIELDS.read_text()) if FIELDS.exists() else {}
    for document in documents:
        for api in SUPPORTED_API_VERSIONS:
            if (fields := list_fields(document, api)) is not None:
                lists[api] = fields
    ordered = {api: lists[api] for api in SUPPORTED_API_VERSIONS if api in lists}
    FIELDS.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
