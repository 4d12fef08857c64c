"""What the hub of the tests does with uploads: creating repositories and branches, LFS objects, commits.

As on the real one, a large file is asked for by its content and sent only if it is not there yet, and nothing is in the
repository before a commit shows it.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Protocol

from tests.make.hub_files import LARGE


class Answer(Protocol):
    """An answer with a JSON document."""

    def __call__(self, status: int, value: Any, code: str = "") -> None: ...


@dataclasses.dataclass
class Uploads:
    """writers: tokens that may write. objects: large files that were sent, by SHA-256; sent: their hashes in order.

    public: repositories that are public. refuse_card: what is wrong with every card.
    """

    url: str = ""
    writers: set[str] = dataclasses.field(default_factory=lambda: {"hf_secret"})
    objects: dict[str, bytes] = dataclasses.field(default_factory=dict)
    sent: list[str] = dataclasses.field(default_factory=list)
    branches: dict[str, dict[str, dict[str, bytes]]] = dataclasses.field(default_factory=dict)
    public: set[str] = dataclasses.field(default_factory=set)
    refuse_card: str | None = None

    def get(self, path: str, answer: Answer) -> bool:
        """Answer what is asked of an uploaded repository; False for anything else."""
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)
        if match is None or match[1] not in self.branches:
            return False
        private = match[1] not in self.public
        answer(200, {"id": match[1], "modelId": match[1], "private": private, "sha": "0" * 40, "siblings": []})
        return True

    def post(self, path: str, body: bytes, token: str | None, answer: Answer) -> None:
        """Answer a POST."""
        if path == "/api/validate-yaml":
            errors = [{"message": self.refuse_card}] if self.refuse_card else []
            return answer(400 if errors else 200, {"errors": errors, "warnings": []})
        if token not in self.writers:
            return answer(403 if token else 401, {"error": "no"})
        if path == "/api/repos/create":
            return self._create(json.loads(body), answer)
        batch = re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path)
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|branch|commit)/(.+)", path)
        match = batch or api
        if match is None or match[1] not in self.branches:
            return answer(404, {"error": "no"}, "RepoNotFound")
        if batch:
            return answer(200, {"transfer": "basic", "objects": list(map(self._object, json.loads(body)["objects"]))})
        assert api is not None
        branches, branch = self.branches[api[1]], api[3]
        if api[2] == "branch":
            known = branch in branches
            branches.setdefault(branch, dict(branches["main"]))
            return answer(409 if known else 201, {})
        if branch not in branches:
            return answer(404, {"error": "no"}, "RevisionNotFound")
        if api[2] == "preupload":
            return answer(200, {"files": list(map(_mode, json.loads(body)["files"]))})
        commit = self._commit(branches[branch], [json.loads(line) for line in body.splitlines()])
        answer(200, {"commitUrl": f"{self.url}/{api[1]}/commit/{commit}", "commitOid": commit, "success": True})

    def put(self, path: str, body: bytes, answer: Answer) -> None:
        """Keep a large file, if it is the one that was announced."""
        digest = hashlib.sha256(body).hexdigest()
        if path != f"/upload/{digest}":
            return answer(400, {"error": "another hash"})
        self.objects[digest] = body
        self.sent.append(digest)
        answer(200, {})

    def _create(self, wanted: Mapping[str, Any], answer: Answer) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        known = name in self.branches
        self.branches.setdefault(name, {"main": {}})
        if not known and wanted.get("visibility") != "private" and wanted.get("private") is not True:
            self.public.add(name)
        answer(409 if known else 200, {"url": f"{self.url}/{name}"})

    def _object(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        if wanted["oid"] in self.objects:
            return {"oid": wanted["oid"], "size": wanted["size"]}
        upload = {"href": f"{self.url}/upload/{wanted['oid']}", "header": {}}
        return {"oid": wanted["oid"], "size": wanted["size"], "actions": {"upload": upload}}

    def _commit(self, files: dict[str, bytes], lines: list[dict[str, Any]]) -> str:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
        return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def _mode(file: Mapping[str, Any]) -> dict[str, Any]:
    large = str(file["path"]).endswith(LARGE)
    return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": None}
