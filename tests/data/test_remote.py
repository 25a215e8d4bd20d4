"""Corpora behind a URL: the same frames as at home, each shard fetched once, one line for whatever is wrong there."""

from __future__ import annotations

import http.server
import multiprocessing
import pickle
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from talkface.data import Corpus
from talkface.data.features import FeatureStore, compute_features
from talkface.data.order import EpochSampler
from talkface.data.talking import TalkingDataset
from talkface.errors import TalkfaceError

fsspec = pytest.importorskip("fsspec")


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; counts requests; can answer ranges, and can fail."""

    def __init__(self, folder: Path, ranges: bool = True) -> None:
        self.folder, self.ranges, self.failures = folder, ranges, 0
        self.requests: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/corpora/dots"

    def gets(self, ending: str) -> list[str]:
        return [wanted for path, wanted in self.requests if path.endswith(ending)]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.do_GET(body=False)

    def do_GET(self, body: bool = True) -> None:
        path = self.server.folder / self.path.removeprefix("/corpora/dots/")
        wanted = self.headers.get("Range", "")
        if body:
            self.server.requests.append((self.path, wanted))
            if self.server.failures > 0:
                self.server.failures -= 1
                self.send_error(503)
                return
        if not path.is_file():
            self.send_error(404)
            return
        data, code = path.read_bytes(), 200
        size = len(data)
        self.send_response(206 if wanted and self.server.ranges else code)
        if wanted and self.server.ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            data = data[int(first) : int(last) + 1]
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(data) - 1}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TALKFACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(corpus_folder: Path, cache: Path) -> Iterator[Server]:
    made = Server(corpus_folder)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def read_one(url: str) -> int:
    corpus = Corpus(url, "train")
    return int(corpus.read_frame(corpus.clips[0], 3).sum())


def test_whole_shards_are_fetched_once(server: Server, corpus_folder: Path, cache: Path) -> None:
    pytest.importorskip("aiohttp")
    local, remote = Corpus(corpus_folder, "train"), Corpus(server.url, "train")
    assert remote.clips == local.clips and not server.gets(".tar")
    for clip in local:
        for frame in (0, 41):
            assert np.array_equal(remote.read_frame(clip, frame), local.read_frame(clip, frame))
        assert np.array_equal(remote.read_audio(clip), local.read_audio(clip))
        assert remote.read_meta(clip) == local.read_meta(clip)
    assert server.gets("train-0.tar") == [""] and not server.gets("val-0.tar")
    # other processes, and this one after it was opened again, find it there
    again = pickle.loads(pickle.dumps(remote))
    assert np.array_equal(again.read_frame(again.clips[0], 3), local.read_frame(local.clips[0], 3))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert len(set(pool.map(read_one, [server.url] * 4))) == 1
    assert server.gets("train-0.tar") == [""]
    assert not [path for path in cache.rglob("*.partial")]


def test_processes_that_start_together_fetch_once(server: Server) -> None:
    pytest.importorskip("aiohttp")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert len(set(pool.map(read_one, [server.url] * 4, chunksize=1))) == 1
    assert server.gets("train-0.tar") == [""]


@pytest.mark.parametrize("ranges", [True, False])
def test_single_members_by_ranges(server: Server, corpus_folder: Path, cache: Path, ranges: bool) -> None:
    pytest.importorskip("aiohttp")
    server.ranges = ranges  # some servers send everything instead
    local, remote = Corpus(corpus_folder), Corpus(server.url, reading="ranges")
    clip = local.clips[2]
    assert np.array_equal(remote.read_frame(clip, 7), local.read_frame(clip, 7))
    assert np.array_equal(remote.read_truth(clip)["landmarks"], local.read_truth(clip)["landmarks"])
    wanted = f"bytes={clip.frame_offsets[7]}-{clip.frame_offsets[7] + clip.frame_sizes[7] - 1}"
    assert server.gets("train-0.tar")[0] == wanted and not list(cache.rglob("*.tar"))


def test_a_broken_line_is_tried_again(
    server: Server, corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr("talkface.data.remote.WAIT", 0.01)
    remote = Corpus(server.url, "train")
    server.failures = 2
    local = Corpus(corpus_folder, "train")
    assert np.array_equal(remote.read_frame(local.clips[0], 0), local.read_frame(local.clips[0], 0))
    server.failures = 99
    with pytest.raises(TalkfaceError, match=r"corpus\.json cannot be read .*503"):
        Corpus(server.url)


def put_in_memory(folder: Path, name: str) -> str:
    files = fsspec.filesystem("memory")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            files.pipe_file(f"/{name}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return f"memory://{name}"


class Loud(nn.Module):
    feature_rate, feature_dim = 50.0, 1
    calls = 0

    def encode_long(self, waveform: Tensor) -> Tensor:
        Loud.calls += 1
        return waveform[: len(waveform) // 320 * 320].view(-1, 320).abs().mean(1, keepdim=True)


def test_sidecars_come_along_or_stay_here(corpus_folder: Path, tmp_path: Path, cache: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(corpus_folder, home)
    shutil.rmtree(home / "features", ignore_errors=True)
    bare = Corpus(put_in_memory(home, "bare"), "train")
    folder = compute_features(bare, Loud())
    assert folder.is_relative_to(cache) and Loud.calls == len(bare)
    compute_features(Corpus(home), Loud())
    Loud.calls = 0
    full = Corpus(put_in_memory(home, "full"), "train")
    stored = FeatureStore(compute_features(full, Loud()))
    assert Loud.calls == 0  # brought, not computed
    clip = full.clips[1]
    assert np.allclose(
        stored.read(clip), Loud().encode_long(torch.from_numpy(full.read_audio(clip))), atol=1e-3
    )


def test_a_loader_with_workers_reads_it(corpus_folder: Path, cache: Path) -> None:
    url = put_in_memory(corpus_folder, "loader")
    found = []
    for corpus in (Corpus(corpus_folder, "train"), Corpus(url, "train")):
        data = TalkingDataset(corpus, image_size=16, alignment="none", samples_per_clip=2)
        sampler = EpochSampler(data, seed=1, groups=data.shard_of_items())
        found.append([batch["target"] for batch in DataLoader(data, 2, sampler=sampler, num_workers=2)])
    assert len(found[0]) == 3 and all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_a_corpus_that_changed_is_another(corpus_folder: Path, tmp_path: Path, cache: Path) -> None:
    first = Corpus(put_in_memory(corpus_folder, "changes"))
    files = fsspec.filesystem("memory")
    about = files.cat_file("/changes/corpus.json").replace(b"dots", b"rots")
    files.pipe_file("/changes/corpus.json", about)
    second = Corpus("memory://changes/")
    assert second.info["name"] == "rots" and second.folder != first.folder


def test_what_is_wrong_is_one_line(corpus_folder: Path, cache: Path, tmp_path: Path, monkeypatch) -> None:
    for url, words in (
        ("memory://nothing/here", r"memory://nothing/here has no corpus\.json"),
        ("gopher-x://host/corpus", "gopher-x.*cannot be read"),
    ):
        with pytest.raises(TalkfaceError, match=words):
            Corpus(url)
    url = put_in_memory(corpus_folder, "broken")
    files = fsspec.filesystem("memory")
    data = files.cat_file("/broken/shards/train-0.tar")
    files.pipe_file("/broken/shards/train-0.tar", data[: len(data) // 2])
    files.rm_file("/broken/shards/val-0.tar")
    corpus = Corpus(url)
    with pytest.raises(TalkfaceError, match=r"val-0\.tar is missing"):
        corpus.read_frame(next(clip for clip in corpus if clip.split == "val"), 0)
    with pytest.raises(TalkfaceError, match="the file is truncated"):
        corpus.read_frame(corpus.clips[2], 70)
    files.rm_file("/broken/index.parquet")
    with pytest.raises(TalkfaceError, match="unfinished"):
        Corpus(url)
    with pytest.raises(TalkfaceError, match="reading: 'all'; allowed shards, ranges"):
        # what is refused is what the type forbids
        Corpus(corpus_folder, reading="all")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TALKFACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(TalkfaceError, match="set TALKFACE_CACHE to another folder"):
        Corpus(put_in_memory(corpus_folder, "nowhere"))
