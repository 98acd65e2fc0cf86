"""docs/CONTAINERS.md and deploy/kubernetes-pods.yaml ask for the same right, and no more than is used; every metric named there is one."""

from __future__ import annotations

import re
from pathlib import Path

from infrasight.node import measures
from infrasight.node.graph import build
from infrasight.node.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/CONTAINERS.md").read_text().split("## What the Kubernetes API server adds")[1].split("\n## ")[0]
MANIFEST = (ROOT / "deploy/kubernetes-pods.yaml").read_text()


def test_the_role() -> None:
    shown = PAGE.split("```yaml\n")[1].split("```")[0]
    assert shown in MANIFEST
    assert re.findall(r"(?:verbs|resources): (.*)", MANIFEST) == ['["pods"]', '["list", "watch"]']


def test_every_metric_is_named() -> None:
    node = build(None, Settings(output="none", kubernetes_api="http://127.0.0.1:1", node_name="n"))  # type: ignore[arg-type]  # wiring traces nothing
    names = {sample.name for sample in measures._containers(node) if "kubernetes" in sample.name}
    assert len(names) == 7
    assert names <= {name if name.startswith("infrasight") else f"infrasight_kubernetes{name}" for name in re.findall(r"`(\w+)`", PAGE)}
    silent = build(None, Settings(output="none"))  # type: ignore[arg-type]
    assert not [sample for sample in measures._containers(silent) if "kubernetes" in sample.name]
