"""What travels with a submitted job: what it needs, no secret, and nothing that the job server would refuse."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from sdbatch.dispatch import package as packing
from sdbatch.dispatch.package import Package, list_package, pack
from sdbatch.dispatch.secret_names import looks_like_a_secret
from sdbatch.errors import JobError

SECRETS = (
    ".env",
    ".env.production",
    "prod.env",
    "server.pem",
    "tls.KEY",
    "id_rsa",
    "id_ed25519.pub",
    ".netrc",
    ".pypirc",
    ".npmrc",
    ".git-credentials",
    "credentials",
    "credentials.json",
    "gcp-credentials.json",
    "service-account-prod.json",
    "client_secret_123.json",
    "secrets.yaml",
    "terraform.tfstate",
    "kubeconfig",
    "token",
    "store.p12",
    ".aws/config",
    ".ssh/known_hosts",
    "deep/.aws/credentials",
    ".kube/config",
    ".config/gcloud/application_default_credentials.json",
)
HARMLESS = (
    "job.yaml",
    "tokens.csv",
    "keyboard.png",
    "environment.md",
    "monkey.txt",
    "my_secretary.md",
    "prompts/key.md",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "work"
    (root / ".git" / "info").mkdir(parents=True)
    for name in (*SECRETS, *HARMLESS, ".git/config", "out/a.png", ".venv/bin/python", "manifests/spring/p.parquet"):
        _write(root / name)
    (root / ".gitignore").write_text("*.log\n/manifests/*/\nnotes/\n!keep.log\n")
    for name in ("a.log", "keep.log", "notes/x.md", "manifests/winter/p.parquet", "sub/b.log", "sub/c.log"):
        _write(root / name)
    (root / "sub" / ".gitignore").write_text("!b.log\n")
    return root


def _write(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.mark.fault("S5", ".env, keys, .aws/, .ssh/ beside a job", "none of them is packed, ignored by git or not")
def test_names_of_secrets_never_travel(folder: Path) -> None:
    listed = list_package(folder, [folder / "job.yaml"])

    assert set(SECRETS) & set(listed.sizes) == set()
    assert set(HARMLESS) <= set(listed.sizes)
    assert {".env", "server.pem", ".aws/", ".ssh/"} <= set(listed.secrets)
    assert f"{len(listed.secrets)} named like secrets" in listed.described()


@pytest.mark.fault("S5", "a private key under another name, and a link to one", "neither is packed")
def test_a_key_is_known_by_its_first_line_and_a_link_by_its_target(folder: Path, tmp_path: Path) -> None:
    _write(folder / "notes.txt", b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n")
    _write(tmp_path / "outside.txt")
    (folder / "a.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "b.txt").symlink_to(folder / "server.pem")
    (folder / "c.txt").symlink_to(folder / "job.yaml")
    (folder / "d.txt").symlink_to("nowhere")
    listed = list_package(folder, [])

    assert not {"notes.txt", "a.txt", "b.txt", "d.txt"} & set(listed.sizes)
    assert "c.txt" in listed.sizes
    assert "notes.txt" in listed.secrets
    assert listed.links == ("a.txt", "b.txt", "d.txt")


@pytest.mark.fault("S5", "files that git ignores", "they stay here, but for what the job names")
def test_what_git_ignores_stays_but_for_what_the_job_names(folder: Path) -> None:
    plain = list_package(folder, [])
    named = list_package(folder, [folder / "manifests" / "spring"])

    assert not {"a.log", "sub/c.log", "notes/x.md", "manifests/spring/p.parquet"} & set(plain.sizes)
    assert {"keep.log", "sub/b.log"} <= set(plain.sizes)
    assert set(named.sizes) - set(plain.sizes) == {"manifests/spring/p.parquet"}
    assert not [name for name in named.sizes if name.startswith((".git/", ".venv/", "out/"))]


def test_a_job_in_a_folder_of_a_repository_obeys_the_rules_above_it(folder: Path) -> None:
    for name in ("jobs/a.yaml", "jobs/debug.log", "jobs/notes/x.md"):
        _write(folder / name)
    (folder / ".git" / "info" / "exclude").write_text("*.bak\n")
    _write(folder / "jobs" / "a.bak")

    assert set(list_package(folder / "jobs", []).sizes) == {"a.yaml"}


def test_a_pattern_leaves_out_more_and_the_campaign_stays(folder: Path) -> None:
    _write(folder / "campaign" / "assets" / "a.png")
    listed = list_package(folder, [folder / "prompts"], ["prompts/", "*.png"], folder / "campaign")

    assert not [name for name in listed.sizes if name.startswith(("prompts/", "campaign/")) or name.endswith(".png")]


def test_a_job_that_needs_a_secret_is_refused_by_its_name(folder: Path) -> None:
    with pytest.raises(JobError, match=r"secrets\.yaml: the job needs it, and it is named like a secret"):
        list_package(folder, [folder / "secrets.yaml"])


@pytest.mark.fault(
    "F37", "a folder that is larger than the job server takes", "sizes and what to leave out, nothing sent"
)
def test_a_package_that_is_too_large_is_refused_with_what_is_large_in_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "PACKAGE_BYTES_MAX", 64 << 10)
    _write(folder / "renders" / "a.raw", os.urandom(96 << 10))
    listed = list_package(folder, [])

    with pytest.raises(JobError) as refused:
        pack(listed, tmp_path / "package.zip")
    said = str(refused.value)
    assert "over 64.0 KiB when packed" in said
    assert "The largest: renders/ 96.0 KiB, " in said
    assert "--exclude PATTERN" in said
    assert "nothing was sent" in said
    pack(list_package(folder, [], ["renders/"]), tmp_path / "package.zip")


def test_equal_folders_give_equal_packages_which_hold_what_was_listed(folder: Path, tmp_path: Path) -> None:
    (folder / "job.yaml").chmod(0o755)
    listed = list_package(folder, [])
    pack(listed, tmp_path / "one.zip")
    os.utime(folder / "job.yaml", (1, 1))
    pack(listed, tmp_path / "two.zip")

    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == list(listed.sizes)
        assert archive.read("job.yaml") == b"x"
        assert archive.getinfo("job.yaml").external_attr >> 16 & 0o777 == 0o755


def test_too_many_files_are_refused_before_they_are_packed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "FILES_MAX", 3)

    with pytest.raises(JobError, match="over 3 files"):
        list_package(folder, [])


def test_a_package_says_what_it_is() -> None:
    package = Package(folder=Path("/w"), sizes={"a/b": 3 << 20, "c": 10}, secrets=(".env",), num_ignored=2)

    assert package.described() == (
        "sending 2 files, 3.0 MiB, of /w (a/ 3.0 MiB, c 10 B); not sent: 1 named like secrets (.env), 2 ignored"
    )


def test_a_checkout_of_the_project_travels_whole() -> None:
    # There the folder that is sent holds the package, which the cluster then imports in the place of its own.
    package = Path(packing.__file__).parents[1]
    files = [path.relative_to(package) for path in package.rglob("*") if "__pycache__" not in path.parts]

    assert len(files) > 300
    assert [str(path) for path in files if looks_like_a_secret(PurePosixPath(path))] == []
