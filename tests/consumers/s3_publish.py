"""Publish to an S3 that moto plays, in the environment of requirements-s3.txt.

Arguments: two releases of one name. Prints, after each step, what the bucket holds: key → SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from export.release.__main__ import main

BUCKET = "models"


class Interrupted(BaseException):
    """Stands for a run that is killed."""


def show(client: Any) -> None:
    """Print the bucket's content."""
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]
    bodies = {key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
    digests = {key: hashlib.sha256(data).hexdigest() for key, data in bodies.items()}
    sys.stdout.write(json.dumps({"bucket": digests}) + "\n")


def publish(release: str) -> None:
    """As the command line does it."""
    main(["publish", release, "--to", f"s3://{BUCKET}/llm"], standalone_mode=False)


def interrupted_publish(release: str, after: int) -> None:
    """Die after so many files."""
    import s3fs

    original = s3fs.S3FileSystem.put_file
    count = 0

    def put_file(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        if count == after:
            raise Interrupted
        count += 1
        return original(*arguments, **options)

    s3fs.S3FileSystem.put_file = put_file
    try:
        publish(release)
    except Interrupted:
        s3fs.S3FileSystem.put_file = original


def steps(first: str, second: str) -> None:
    """Interrupt, go on, repeat, and publish a change."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    interrupted_publish(first, 5)
    show(client)
    for release in (first, first, second):
        publish(release)
        show(client)
    server.stop()


if __name__ == "__main__":
    steps(*sys.argv[1:])
