"""Names of files that hold secrets, as people's tools write them; such files never leave this machine.

path inside a folder --> looks_like_a_secret()
"""

from __future__ import annotations

import fnmatch
from pathlib import PurePosixPath
from typing import Final

FOLDERS: Final = (
    ".aws",
    ".azure",
    ".config/gcloud",
    ".docker",
    ".gcloud",
    ".gnupg",
    ".huggingface",
    ".kube",
    ".password-store",
    ".secrets",
    ".ssh",
    ".terraform",
    "secrets",
)
FILES: Final = (
    # Environments, and whatever says of itself that it is secret
    ".env",
    ".env.*",
    "*.env",
    ".envrc",
    "*secret*.json",
    "*secret*.toml",
    "*secret*.txt",
    "*secret*.y*ml",
    "*.secret",
    "*.secrets",
    "*password*.txt",
    "passwords*",
    # Keys and certificates
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.p8",
    "*.ppk",
    "*.jks",
    "*.keystore",
    "*.kdbx",
    "*.gpg",
    "*.ovpn",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    # Credentials of clouds, registries and tools
    "credentials*",
    "*credentials.json",
    "*credentials.csv",
    "accesskeys*.csv",
    "*_accesskeys.csv",
    "service*account*.json",
    "*service*account*.json",
    "client_secret*",
    "*.tfstate",
    "*.tfstate.*",
    "*.tfvars",
    "kubeconfig*",
    "*.kubeconfig",
    "auth_token",
    "token",
    "*.token",
    "token.json",
    "token.txt",
    ".boto",
    ".dockercfg",
    ".dockerconfigjson",
    ".git-credentials",
    ".htpasswd",
    ".my.cnf",
    ".netrc",
    "_netrc",
    ".npmrc",
    ".passwd-s3fs",
    ".pgpass",
    ".pypirc",
    ".s3cfg",
    ".vault-token",
    ".yarnrc.yml",
    "rclone.conf",
)


def looks_like_a_secret(path: PurePosixPath) -> bool:
    """Whether a file or folder, or any folder it lies in, has a name of secrets; letters' case does not matter."""
    parts = [part.lower() for part in path.parts]
    if any(fnmatch.fnmatchcase(parts[-1], pattern) for pattern in FILES):
        return True
    inner = f"/{'/'.join(parts)}/"
    return any(f"/{folder}/" in inner for folder in FOLDERS)


def holds_a_key(head: bytes) -> bool:
    """Whether a file that begins so is a private key, whatever its name."""
    return head.lstrip().startswith(b"-----BEGIN ") and b"PRIVATE KEY" in head.partition(b"\n")[0]
