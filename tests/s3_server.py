"""A server on loopback that speaks S3, for the length of a test session: moto's, with one bucket."""

import os
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "ballast-tests"


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """The URL of a folder in an empty bucket; credentials of no worth are in the environment."""
    worthless = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in worthless}
    os.environ |= worthless
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(
            Bucket=BUCKET
        )
        yield f"s3://{BUCKET}/ballast?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
