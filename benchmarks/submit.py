"""What a submission costs, as a ratio to slurmrestd's own in the same run, and where its time goes.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.submit [--mongodb mongodb://…] [--key]

Starts gunicorn with one worker, and submits held jobs in turns: to slurmrestd itself, and by POST /submit.
Both keep their connection. Cancels the jobs afterwards. The parts are measured inside the service, in the
same submissions; what is left over is what gunicorn and the client need around it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import requests

from app.slurm.request import SlurmRequest
from app.slurm.tokens import TokenMint
from benchmarks.service import KEY_PATH, SLURM_URL, USER, held_task, parts, service, slurm_session

WARM_UP = 20


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mongodb", help="the address of a MongoDB; without it SQLite")
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--key", action="store_true", help="ask the caller for a key, and count his requests")
    options = parser.parse_args()
    mint = TokenMint(KEY_PATH.read_bytes(), 300)
    ids: list[int] = []
    with (
        slurm_session() as session,
        tempfile.TemporaryDirectory() as folder,
        service(Path(folder), options.mongodb, {}, with_key=options.key) as (url, proof),
        requests.Session() as http,
        requests.Session() as raw_http,
    ):
        dialect = session.dialect()
        raw_body = {
            "script": "#!/bin/bash\ntrue\n",
            "job": {
                "current_working_directory": "/tmp",
                "environment": ["PATH=/bin"] if dialect.is_structured else {"PATH": "/bin"},
                "hold": True,
                "memory_per_node": 10,
            },
        }

        def raw() -> None:
            answer = raw_http.post(
                f"{SLURM_URL}/slurm/{dialect.api}/job/submit",
                json=raw_body,
                headers=mint.make_headers(USER),
                timeout=30,
            )
            ids.append(answer.json()["job_id"])

        def ours() -> None:
            answer = http.post(f"{url}/submit", json={"task": held_task()}, headers=proof, timeout=30)
            ids.append(answer.json()["slurm_job_id"])

        for call in (raw, ours):
            for _ in range(WARM_UP):
                call()
        parts(url)
        times = [(seconds(raw), seconds(ours)) for _ in range(options.number)]
        spent = {name: part["median"] for name, part in parts(url).items()}
        for job_id in ids:
            session.send(SlurmRequest("DELETE", f"job/{job_id}", user=USER))
    raw_ms, whole_ms = (1000 * statistics.median(column) for column in zip(*times, strict=True))
    writes = spent["add_record"] + spent["accept_job"]
    guard = spent["guard authenticate"] + spent["guard count_request"]
    print(
        f"{'MongoDB' if options.mongodb else 'SQLite'}, {options.number} submissions each, medians:"
        f" slurmrestd {raw_ms:.2f} ms, slurm-proxy {whole_ms:.2f} ms, ratio {whole_ms / raw_ms:.2f}.\n"
        f"Of slurm-proxy's: slurmrestd {spent['slurmrestd']:.2f} ms, two writes of the store {writes:.2f} ms,"
        f" the rest of the use case {spent['use case'] - spent['slurmrestd'] - writes:.2f} ms,"
        f" who calls {guard:.2f} ms,"
        f" Flask, log and audit {spent['request'] - spent['use case'] - guard:.2f} ms,"
        f" gunicorn, the client and the way between {whole_ms - spent['request']:.2f} ms"
    )


if __name__ == "__main__":
    main()
