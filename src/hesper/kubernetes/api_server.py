"""The API server, as a pod reaches it: with its service account's token and certificate.

Source: "Accessing the Kubernetes API from a Pod" in Kubernetes' documentation, and its API
reference for `resource.k8s.io/v1`.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from hesper.kubernetes.rpc import KubernetesError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
RESOURCES = "/apis/resource.k8s.io/v1"
CALL_SECONDS = 20.0


class ApiError(KubernetesError):
    """The API server's refusal; or there is none."""

    def __init__(self, text: str, status: int = 0) -> None:
        """`status` is HTTP's; 0 where there was no answer."""
        super().__init__(text)
        self.status = status


class ApiServer:
    """The cluster's API server.  To be made and used in one event loop; `close` it."""

    def __init__(self, url: str, account: Path = ACCOUNT) -> None:
        """`account` is a folder with `token`, and `ca.crt` where the URL is https."""
        self._url = url.rstrip("/")
        self._token = account / "token"
        context: ssl.SSLContext | bool = True
        if url.startswith("https:"):
            try:
                context = ssl.create_default_context(cafile=account / "ca.crt")
            except (OSError, ssl.SSLError) as error:
                raise ApiError(f"{account / 'ca.crt'}: {error}") from None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context),
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
        )

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Do something to an object, and return the object.  Raises `ApiError`."""
        try:
            # It is renewed while we run.
            token = self._token.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ApiError(f"{self._token}: {error.strerror}") from None
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        try:
            async with self._session.request(
                method, self._url + path, json=body, params=query, headers=headers
            ) as response:
                content = await response.json(content_type=None)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ApiError(f"the API server does not answer: {method} {path}: {error!r}") from None
        content = content if isinstance(content, dict) else {}
        if status >= 400:
            reason = content.get("message", f"HTTP {status}")
            raise ApiError(f"the API server refuses {method} {path}: {reason}", status)
        return content


def server_url(environ: Mapping[str, str] = os.environ) -> str:
    """The URL by which a pod reaches the API server.  Raises `ApiError` outside of a cluster."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ApiError(
            "no API server: pods have KUBERNETES_SERVICE_HOST; elsewhere name it (--api-server)"
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
