"""Engines: the same corpus from a Ray cluster that loses a node; what is missing is told."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from talkface.data.prepare.run import prepare
from talkface.errors import TalkfaceError

pytest.importorskip("pyarrow")


def test_without_ray_the_extra_is_named(
    grey: ModuleType, grey_raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TalkfaceError, match=r"'ray' is needed .* pip install 'talkface\[ray\]'"):
        prepare(grey.GreySource(grey_raw), tmp_path / "corpus", engine="ray", report=lambda line: None)


@pytest.fixture
def two_nodes(grey: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A cluster of this machine and its second node."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(grey.__file__).parent), *filter(None, sys.path)])
    )
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else workers starve on a machine that has other work
    monkeypatch.setenv("RAY_health_check_period_ms", "1000")  # a dead node is noticed after six of these
    monkeypatch.setenv("RAY_health_check_failure_threshold", "6")
    store = 80 * 2**20
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": store}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(num_cpus=1, object_store_memory=store)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster, second
    cluster.shutdown()


@pytest.mark.timeout(240)
def test_a_cluster_that_loses_a_node_makes_the_same_corpus(
    two_nodes: tuple[Any, Any],
    grey: ModuleType,
    grey_raw: Path,
    grey_corpus: Path,
    tmp_path: Path,
    hashes: Callable,
) -> None:
    cluster, second = two_nodes
    out = tmp_path / "corpus"
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    killed_at: list[int] = []

    def written() -> list[Path]:
        return list((out / "parts").glob("*-*.json"))

    def kill_when_both_work() -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end and (len(list(hosts.iterdir())) < 2 or len(written()) < 2):
            time.sleep(0.02)
        killed_at.append(len(written()))
        cluster.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill_when_both_work)
    killer.start()
    prepare(
        grey.GreySource(grey_raw, seconds=0.3, hosts=hosts),
        out,
        engine="ray",
        workers=2,
        report=lambda line: None,
    )
    killer.join()
    assert len(list(hosts.iterdir())) == 2 and 2 <= killed_at[0] < 7
    assert hashes(out) == hashes(grey_corpus)  # complete, and nothing twice
