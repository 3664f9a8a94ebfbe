"""A Dask cluster of processes that share no folder, and an S3 server, on the loopback."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgeproof.steps.results import attempts
from edgeproof.steps.store import Store

ROOT = Path(__file__).parent.parent
BUCKET = "bucket"


class Cluster:
    """A scheduler and workers, each with a cache and a folder for temporary files of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._processes: list[subprocess.Popen[bytes]] = []
        self.pids: list[int] = []
        place = folder / "scheduler.json"
        self._begin("scheduler", "dask_scheduler", "--port=0", "--dashboard-address=:0",
                    "--no-show", f"--scheduler-file={place}")  # fmt: skip
        while not (place.exists() and place.read_text().rstrip().endswith("}")):
            time.sleep(0.05)
        self.address: str = json.loads(place.read_text())["address"]

    def worker(self, name: str, *options: str) -> None:
        """Begin a worker."""
        pid = self._begin(name, "dask_worker", self.address, "--nthreads=1", "--no-nanny",
                          "--no-dashboard", "--memory-limit=0", *options)  # fmt: skip
        self.pids.append(pid)

    def kill_who_does(self, store: Store, key: str) -> bool:
        """Kill the worker that has begun a step; whether one has."""
        begun = attempts(store, key)
        pids = [pid for pid in self.pids if begun and begun[0].endswith(f":{pid}")]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def kill_scheduler(self) -> None:
        """Kill who decides."""
        self._processes[0].kill()

    def _begin(self, name: str, module: str, *options: str) -> int:
        own = self._folder / name
        own.mkdir(parents=True)
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "EDGEPROOF_CACHE": str(own / "cache"),
            "TMPDIR": str(own),
            **self._environment,
        }
        command = [sys.executable, "-m", f"distributed.cli.{module}", *options]
        with (own / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=own, env=environment, stdout=log, stderr=log)
        self._processes.append(process)
        return process.pid

    def end(self) -> None:
        """End all of it."""
        for process in reversed(self._processes):
            process.kill()
        for process in self._processes:
            process.wait()


@contextmanager
def cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A cluster without workers yet."""
    made = Cluster(folder, environment)
    try:
        yield made
    finally:
        made.end()


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """A server with an empty bucket; the environment that finds it."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": str(host),
        "no_proxy": str(host),
    }
    before = {name: os.environ.get(name) for name in found}
    os.environ.update(found)
    try:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield found
    finally:
        server.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
