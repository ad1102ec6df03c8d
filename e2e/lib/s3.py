"""A server that speaks S3, in memory: moto's."""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError

from .run import free_port, wait_until

ACCESS_KEY, SECRET_KEY = "e2e-access-key", "e2e-secret-key"


class S3:
    def __init__(self, run, name="s3"):
        self.port = free_port()
        program = "from moto.server import main; main()"
        arguments = [sys.executable, "-c", program, "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = run.spawn(name, arguments, run.path(f"{name}.log"))
        self.client = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, config=Config(retries={"max_attempts": 1}),
        )
        wait_until("the S3 server answers", self._answers, alive=self.process)

    def _answers(self):
        try:
            return self.client.list_buckets()
        except (EndpointConnectionError, ClientError):
            return False

    def bucket(self, name):
        self.client.create_bucket(Bucket=name)
        return name

    def objects(self, bucket, prefix=""):
        """{key: bytes}"""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
