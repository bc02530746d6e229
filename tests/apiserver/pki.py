"""Certificates of one test cluster: an authority and what it signs, by openssl.

Invariant: every key is in the cluster's own folder and is worth nothing outside it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_CONFIG = "[req]\ndistinguished_name = subject\n[subject]\n"
_SERVER = (
    "subjectAltName = IP:127.0.0.1, DNS:localhost, DNS:kubernetes.default.svc",
    "extendedKeyUsage = serverAuth",
)
_CLIENT = ("extendedKeyUsage = clientAuth",)


class Pki:
    """An authority in `folder`, made with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "openssl.cnf").write_text(_CONFIG)
        authority = ("basicConstraints = critical, CA:true", "keyUsage = critical, keyCertSign, cRLSign")
        self._make("ca", "/CN=test-authority", authority, ())

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    def server(self, name: str) -> None:
        """`name`.crt and .key for a server on 127.0.0.1."""
        self._signed(name, f"/CN={name}", _SERVER)

    def client(self, name: str, groups: tuple[str, ...] = ()) -> None:
        """`name`.crt and .key for the user `name`."""
        self._signed(name, "".join(f"/O={group}" for group in groups) + f"/CN={name}", _CLIENT)

    def signing_pair(self, name: str) -> None:
        """`name`.key and .pub, by which service account tokens are signed and checked."""
        key = self.folder / f"{name}.key"
        _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
        _openssl("ec", "-in", str(key), "-pubout", "-out", str(self.folder / f"{name}.pub"))

    def _signed(self, name: str, subject: str, extensions: tuple[str, ...]) -> None:
        signer = ("-CA", str(self.authority), "-CAkey", str(self.folder / "ca.key"))
        self._make(name, subject, ("basicConstraints = CA:false", *extensions), signer)

    def _make(self, name: str, subject: str, extensions: tuple[str, ...], signer: tuple[str, ...]) -> None:
        _openssl(
            *("req", "-x509", "-config", str(self.folder / "openssl.cnf"), "-days", "30", *signer),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject),
            *("-keyout", str(self.folder / f"{name}.key"), "-out", str(self.folder / f"{name}.crt")),
            *(word for extension in extensions for word in ("-addext", extension)),
        )


def _openssl(*arguments: str) -> None:
    done = subprocess.run(("openssl", *arguments), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]}: {done.stderr.strip()}")
