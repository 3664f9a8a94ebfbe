"""Publishing to the hub and to GitHub: one commit a repository, a draft until all has arrived."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export.release.publish import retries
from export.release.publish.github import STAGED
from tests import github_server, hub_write_server
from tests.publishing import digests, publish, run


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(retries, "LONGEST_PAUSE", 0.0)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_write_server.WriteHub]:
    from huggingface_hub import constants

    with hub_write_server.serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


def on_hub(hub: hub_write_server.WriteHub, name: str) -> dict[str, str]:
    files = hub.repos[name].commits[-1]
    return {p: hashlib.sha256(d).hexdigest() for p, d in files.items() if p != ".gitattributes"}


def test_each_repository_gets_one_commit_on_the_hub(
    releases: tuple[Path, Path], hub: hub_write_server.WriteHub
) -> None:
    first, second = releases
    hub.faults = [503, 500]
    publish(first, "--to", "hub:me")
    names = {path.name for path in first.iterdir() if (path / "README.md").is_file()}
    assert {name.removeprefix("me/") for name in hub.repos} == names
    for name in names:
        assert on_hub(hub, f"me/{name}") == digests(first / name)
        assert len(hub.repos[f"me/{name}"].commits) == 2
        assert hub.repos[f"me/{name}"].private
    hub.uploads.clear()
    publish(first, "--to", "hub:me", "--public")
    assert not any(repo.private for repo in hub.repos.values())
    assert {len(repo.commits) for repo in hub.repos.values()} == {2}
    publish(second, "--to", "hub:me")
    assert hub.uploads == []  # cards are small files; no weights have changed
    for name in names:
        assert on_hub(hub, f"me/{name}") == digests(second / name)


def test_a_token_that_the_hub_refuses_is_bad_input(
    releases: tuple[Path, Path],
    hub: hub_write_server.WriteHub,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    done = run("publish", releases[0], "--to", "hub:me")
    assert done.exit_code == 2
    assert "401" in done.output
    assert hub.repos == {}


def test_what_a_release_no_longer_has_goes_from_the_hub(
    releases: tuple[Path, Path], hub: hub_write_server.WriteHub
) -> None:
    first, _ = releases
    (name,) = (path.name for path in first.iterdir() if path.name.endswith("GGUF"))
    repo = hub_write_server.Repo(private=False)
    repo.commits.append({"old.gguf": b"old"})
    hub.repos["me/mine"] = repo
    done = run("publish", first, "--to", "hub:me/mine")
    assert done.exit_code == 2  # which of the three?
    hub.repos[f"me/{name}"] = repo
    assert f"me/{name}: " in publish(first, "--to", f"hub:me/{name}", "--dry-run")
    assert len(repo.commits) == 2
    publish(first, "--to", f"hub:me/{name}")
    assert on_hub(hub, f"me/{name}") == digests(first / name)
    assert len(repo.commits) == 3


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[github_server.GitHubServer]:
    with github_server.serve() as server:
        monkeypatch.setenv("GITHUB_API_URL", server.url)
        monkeypatch.setenv("GITHUB_TOKEN", "secret")
        yield server


def assets(server: github_server.GitHubServer) -> dict[str, str]:
    (release,) = server.releases.values()
    return {a["name"]: hashlib.sha256(server.data[a["id"]]).hexdigest() for a in release["assets"]}


def assets_and_left_overs(server: github_server.GitHubServer) -> dict[str, str]:
    """Without what broke on the way."""
    (release,) = server.releases.values()
    whole = [asset for asset in release["assets"] if asset["state"] == "uploaded"]
    return {a["name"]: hashlib.sha256(server.data[a["id"]]).hexdigest() for a in whole}


def broken_after(server: github_server.GitHubServer, count: int) -> Any:
    """Routes whose uploads break once so many have arrived."""
    original = github_server._Handler.upload

    def breaks(self: Any, body: bytes, query: Any, number: str) -> None:
        server.faults = int(len(server.uploads) >= count)
        original(self, body, query, number)

    return tuple(
        (method, pattern, breaks if answer is original else answer)
        for method, pattern, answer in github_server.ROUTES
    )


def expected_assets(release: Path) -> dict[str, str]:
    found = digests(release)
    return {
        path.removeprefix("archives/"): digest
        for path, digest in found.items()
        if "/" not in path or path.startswith("archives/")
    }


def test_a_github_release_is_a_draft_until_all_has_arrived(
    releases: tuple[Path, Path], github: github_server.GitHubServer
) -> None:
    first, _ = releases
    github.faults = 2
    github.corrupt = 1
    publish(first, "--to", "github:me/models")
    assert assets(github) == expected_assets(first)
    assert github.public == [set(expected_assets(first))]
    (release,) = github.releases.values()
    assert release["tag_name"] == first.name
    assert "The first release." in release["body"]
    github.uploads.clear()
    publish(first, "--to", "github:me/models")
    assert github.uploads == []


def test_a_public_github_release_is_changed_only_where_that_is_said(
    releases: tuple[Path, Path], github: github_server.GitHubServer
) -> None:
    first, second = releases
    publish(first, "--to", "github:me/models")
    before = assets(github)
    github.uploads.clear()
    done = run("publish", second, "--to", "github:me/models")
    assert done.exit_code == 2
    assert "it is public and differs" in done.output
    assert "--replace" in done.output
    assert (assets(github), github.uploads) == (before, [])
    publish(second, "--to", "github:me/models", "--dry-run")
    github.corrupt = 1
    publish(second, "--to", "github:me/models", "--replace")
    assert assets(github) == expected_assets(second)
    # All new files had arrived before the first took its place.
    changed = {n for n, digest in expected_assets(second).items() if before.get(n) != digest}
    assert changed
    assert {name.removesuffix(STAGED) for name in github.uploads} == changed
    assert all(name.endswith(STAGED) for name in github.uploads)
    for renamed, names in enumerate(github.seen, 1):
        assert len({name for name in names if name.endswith(STAGED)}) == len(changed) - renamed


def test_a_replacement_that_is_interrupted_leaves_the_old_release_and_is_gone_on_with(
    releases: tuple[Path, Path], github: github_server.GitHubServer
) -> None:
    first, second = releases
    publish(first, "--to", "github:me/models")
    before = assets(github)
    github.uploads.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "ATTEMPTS", 1)
        patch.setattr(github_server, "ROUTES", broken_after(github, 2))
        assert run("publish", second, "--to", "github:me/models", "--replace").exit_code == 2
    there = assets_and_left_overs(github)
    assert before.items() <= there.items()
    assert len(there) == len(before) + 2
    count = len(github.uploads)
    github.faults = 0
    publish(second, "--to", "github:me/models", "--replace")
    assert assets_and_left_overs(github) == expected_assets(second)
    assert len(github.uploads) == len(set(github.uploads))  # each travelled once
    assert len(github.uploads) > count


def test_an_interrupted_github_release_stays_a_draft_and_is_gone_on_with(
    releases: tuple[Path, Path], github: github_server.GitHubServer
) -> None:
    first, _ = releases
    count = len(expected_assets(first))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "ATTEMPTS", 1)
        patch.setattr(github_server, "ROUTES", broken_after(github, 3))
        assert run("publish", first, "--to", "github:me/models").exit_code == 2
    assert github.public == []
    (release,) = github.releases.values()
    assert release["draft"]
    github.faults = 0
    publish(first, "--to", "github:me/models")
    assert len(github.uploads) == count
    assert assets(github) == expected_assets(first)
    assert len(github.public) == 1


def test_a_token_that_github_refuses_is_bad_input(
    releases: tuple[Path, Path], github: github_server.GitHubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "wrong")
    done = run("publish", releases[0], "--to", "github:me/models")
    assert done.exit_code == 2
    assert "401" in done.output
    monkeypatch.delenv("GITHUB_TOKEN")
    monkeypatch.delenv("GH_TOKEN", raising=False)
    assert "GITHUB_TOKEN is not set" in run("publish", releases[0], "--to", "github:a/b").output
    assert json.dumps(github.releases) == "{}"
