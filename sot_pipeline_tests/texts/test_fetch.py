"""Files from elsewhere: fetched once, whole or not at all, never outside their folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.texts.fetch import InputFile, fetch, input_files, located
from sot_pipeline.texts.locate import Located, locate
from sot_pipeline_tests.texts.servers import HubServer, WebServer, running

ROWS = b'{"prompt": "p", "response": "r"}\n' * 1000
HUB = f"hf://datasets/owner/name@{HubServer.COMMIT}"


def quiet(done: int, total: int) -> None: ...


def get(*sources: str, folder: Path, **licences: str) -> list[InputFile]:
    return input_files(sources, folder, licences=licences, progress=lambda name: quiet)


def whole_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]


@pytest.fixture
def web(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "rows.jsonl").write_bytes(ROWS)
    with running(WebServer(tmp_path / "web")) as server:
        yield server


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    fs.pipe({"/bucket/a.jsonl": ROWS, "/bucket/b/c.csv": b"prompt,response\n1,2\n"})
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The real client of the hub, talking to a server on this machine."""
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a.jsonl").write_bytes(ROWS)
    (folder / "data" / "b.jsonl").write_bytes(ROWS[:33])
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with running(HubServer(folder)) as server:
        constants = "huggingface_hub.constants."
        monkeypatch.setattr(f"{constants}ENDPOINT", server.url)
        template = f"{server.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(f"{constants}HUGGINGFACE_CO_URL_TEMPLATE", template)
        for name in ("HF_TOKEN", "HTTP_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        fsspec.get_filesystem_class("hf").clear_instance_cache()
        yield server
    fsspec.get_filesystem_class("hf").clear_instance_cache()


def test_a_file_of_a_web_server_is_fetched_once(web, tmp_path):
    (first,) = get(f"{web.url}/rows.jsonl", folder=tmp_path / "f")
    assert first.path.read_bytes() == ROWS
    assert first.name == first.path.name == "rows.jsonl"
    assert first.location == f"{web.url}/rows.jsonl"
    asked = web.num_requests
    assert get(f"{web.url}/rows.jsonl", folder=tmp_path / "f") == [first]
    assert web.num_requests == asked + 1, "only whether it changed"


@pytest.mark.parametrize("behaviour", ["no_head", "silent"])
def test_servers_may_tell_little(web, tmp_path, behaviour):
    web.behaviour = behaviour
    (file,) = get(f"{web.url}/rows.jsonl", folder=tmp_path / "f")
    assert file.path.read_bytes() == ROWS


def test_a_changed_file_is_fetched_again_and_the_old_one_stays(web, tmp_path):
    (before,) = get(f"{web.url}/rows.jsonl", folder=tmp_path / "f")
    (web.folder / "rows.jsonl").write_bytes(ROWS.replace(b"p", b"q"))
    (after,) = get(f"{web.url}/rows.jsonl", folder=tmp_path / "f")
    assert after.path.read_bytes() != before.path.read_bytes() == ROWS


def test_a_query_is_sent_and_not_written_down(web, tmp_path):
    (file,) = get(f"{web.url}/rows.jsonl?signature=secret", folder=tmp_path / "f")
    assert "secret" not in str(file)


def test_a_file_that_changes_between_listing_and_reading_is_refused(web, tmp_path):
    (found,) = locate(f"{web.url}/rows.jsonl")
    (web.folder / "rows.jsonl").write_bytes(ROWS.replace(b"p", b"q"))
    with pytest.raises(InputError, match="changed while it was fetched"):
        fetch(found, tmp_path / "f", quiet)
    assert whole_files(tmp_path / "f") == []


def test_an_answer_that_ends_early_is_refused(web, tmp_path):
    web.behaviour = "cut"
    with pytest.raises(InputError, match="came incomplete"):
        get(f"{web.url}/rows.jsonl", folder=tmp_path / "f")
    assert whole_files(tmp_path / "f") == []


def test_a_killed_download_leaves_nothing_half_read(web, tmp_path):
    web.behaviour = "stall"
    code = (
        "import sys; from pathlib import Path; from sot_pipeline.texts.fetch import input_files\n"
        "input_files([sys.argv[1]], Path(sys.argv[2]), licences={}, "
        "progress=lambda name: lambda done, total: None)"
    )
    url, folder = f"{web.url}/rows.jsonl", tmp_path / "f"
    with subprocess.Popen([sys.executable, "-c", code, url, str(folder)]) as process:
        assert web.stalled.wait(20)
        until = time.monotonic() + 20
        while not list(folder.rglob(".*.tmp")) and time.monotonic() < until:
            time.sleep(0.01)  # the first bytes are on their way
        os.kill(process.pid, signal.SIGKILL)
    web.behaviour = ""
    assert whole_files(folder) == []
    assert list(folder.rglob(".*.tmp")), "it was killed while it wrote"
    (file,) = get(url, folder=folder)
    assert file.path.read_bytes() == ROWS
    assert not list(folder.rglob(".*.tmp"))


@pytest.mark.parametrize("behaviour", ["", "silent"])
def test_the_size_is_capped_before_and_while_fetching(web, tmp_path, behaviour):
    web.behaviour = behaviour
    (found,) = locate(f"{web.url}/rows.jsonl")
    with pytest.raises(InputError, match="the cap on a file is 1,000"):
        fetch(found, tmp_path / "f", quiet, max_bytes=1_000)
    assert whole_files(tmp_path / "f") == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.jsonl", "{}/gone.jsonl", "http://["])
def test_what_cannot_be_reached_names_address_cause_and_remedy(web, tmp_path, url):
    with pytest.raises(InputError, match=r"cannot be read \(.+\)\. Check the address"):
        get(url.format(web.url), folder=tmp_path / "f")


@pytest.mark.parametrize(
    "hostile", ["../../escape.jsonl", "..%2f..%2fescape", "a\\..\\b", ".ssh", "x" * 300, "\0", "~"]
)
def test_names_from_outside_stay_inside_the_folder(tmp_path, memory, hostile):
    memory.store["/h"] = memory.store["/bucket/a.jsonl"]
    found = Located(f"memory:///{hostile}", "mark", None, None, None, False)
    folder = tmp_path / "f"
    try:
        path = fetch(found, folder, quiet)
    except InputError:
        path = None  # there is no such file, and that is all
    inside = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert all(p.resolve().is_relative_to(folder) for p in inside)
    assert path is None or path.resolve().is_relative_to(folder)


def test_globs_and_folders_of_object_storage(memory, tmp_path):
    names = [file.name for file in get("memory://bucket/*.jsonl", folder=tmp_path / "f")]
    assert names == ["a.jsonl"]
    folder = get("memory://bucket", folder=tmp_path / "f")
    assert [file.location for file in folder] == [
        "memory:///bucket/a.jsonl",
        "memory:///bucket/b/c.csv",
    ]
    assert folder[1].path.read_bytes() == b"prompt,response\n1,2\n"
    with pytest.raises(InputError, match="nothing matches"):
        get("memory://bucket/*.parquet", folder=tmp_path / "f")


def test_a_file_that_two_sources_mean_is_read_once(memory, tmp_path):
    path = tmp_path / "local.jsonl"
    path.write_bytes(ROWS)
    sources = [str(path), f"{tmp_path}/*.jsonl", f"file://{path}", "memory://bucket/a.jsonl"]
    files = get(*sources, "memory://bucket", folder=tmp_path / "f")
    assert [file.name for file in files] == ["local.jsonl", "a.jsonl", "c.csv"]
    assert files[0].path == path, "local files are read where they lie"


def test_a_licence_stated_by_hand_goes_before_the_card(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(ROWS)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (card,) = get(str(folder), folder=tmp_path / "f")
    assert (card.licence, card.licence_from) == ("mit", "dataset card")
    (stated,) = input_files(
        [str(folder)], tmp_path, licences={str(folder): "cc0"}, progress=lambda name: quiet
    )
    assert (stated.licence, stated.licence_from) == ("cc0", "task file")
    (neither,) = get(str(folder / "a.jsonl"), folder=tmp_path / "f")
    assert (neither.licence, neither.licence_from) == (None, "")


def test_links_in_the_hub_cache_are_read_under_their_own_name(tmp_path):
    snapshot = tmp_path / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "blob").write_bytes(b"prompt,response\n1,2\n")
    (snapshot / "rows.csv").symlink_to(tmp_path / "blob")
    for source in (snapshot, snapshot / "rows.csv", f"{snapshot}/*.csv"):
        (file,) = get(str(source), folder=tmp_path / "f")
        assert (file.name, file.path) == ("rows.csv", snapshot / "rows.csv")
        assert file.revision == "a" * 40


@pytest.mark.parametrize("files", ["/data/*.jsonl", "", "/data", "/**/*.jsonl"])
def test_a_hub_dataset_is_asked_once(hub, tmp_path, files):
    first = get(HUB + files, folder=tmp_path / "f")
    assert [file.name for file in first] == ["a.jsonl", "b.jsonl"]
    assert [file.path.read_bytes() for file in first] == [ROWS, ROWS[:33]]
    assert {file.revision for file in first} == {HubServer.COMMIT}
    assert {file.licence for file in first} == {"cc-by-nc-4.0"}
    asked = hub.num_requests
    assert get(HUB + files, folder=tmp_path / "f") == first
    assert hub.num_requests == asked, "a commit never changes"


def test_a_fetched_hub_file_that_was_deleted_comes_back(hub, tmp_path):
    first = get(f"{HUB}/data/a.jsonl", folder=tmp_path / "f")
    first[0].path.unlink()
    assert get(f"{HUB}/data/a.jsonl", folder=tmp_path / "f") == first
    assert first[0].path.read_bytes() == ROWS


def test_the_error_on_a_moving_revision_names_the_newest_commit(hub, tmp_path):
    with pytest.raises(InputError, match=f"the newest is {HubServer.COMMIT}"):
        located("hf://datasets/owner/name@main/data/*.jsonl", tmp_path)


def test_a_hub_file_that_is_not_there(hub, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        get(f"{HUB}/data/gone.jsonl", folder=tmp_path / "f")
    with pytest.raises(InputError, match="nothing matches"):
        get(f"{HUB}/data/*.gone", folder=tmp_path / "f")
