"""How a peer reaches the object server of the bench: each library words the same address in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Remote:
    """The folder of a peer, as the server has it.

    Attributes
    ----------
    url : str
        The server's address.
    prefix : str
        Bucket and folder.
    """

    url: str
    prefix: str

    def s3(self, path: str) -> str:
        """A path below the folder, as an S3 URL."""
        return f"s3://{self.prefix}/{path}"

    def http(self, path: str) -> str:
        """The same over plain HTTP."""
        return f"{self.url}/{self.prefix}/{path}"

    @property
    def fsspec_options(self) -> dict[str, Any]:
        """For s3fs."""
        return {"key": "bench", "secret": "bench", "client_kwargs": {"endpoint_url": self.url}}

    @property
    def boto_options(self) -> dict[str, Any]:
        """For boto3."""
        return {"endpoint_url": self.url, "aws_access_key_id": "bench", "aws_secret_access_key": "bench"}

    @property
    def lance_options(self) -> dict[str, str]:
        """For the Rust object store."""
        return {
            "endpoint": self.url,
            "allow_http": "true",
            "access_key_id": "bench",
            "secret_access_key": "bench",
            "region": "us-east-1",
        }

    @property
    def environment(self) -> dict[str, str]:
        """For those that take an endpoint from the environment alone."""
        return {
            "S3_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
