"""What a source means: which files, in which order, by which names."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sot_pipeline.errors import InputError
from sot_pipeline.texts.file_systems import place_of, shown
from sot_pipeline.texts.locate import locate, unique_names


def put(folder: Path, *names: str, content: str = "{}") -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def found(source: Path | str, root: Path) -> list[str]:
    return [str(Path(file.location).relative_to(root)) for file in locate(str(source))]


def test_a_file_is_itself_even_if_its_name_looks_like_a_pattern(tmp_path):
    put(tmp_path, "a[1].jsonl", "a1.jsonl")
    assert found(tmp_path / "a[1].jsonl", tmp_path) == ["a[1].jsonl"]


def test_a_relative_path_is_found_from_where_the_process_runs(tmp_path, monkeypatch):
    put(tmp_path, "refs/a.jsonl")
    monkeypatch.chdir(tmp_path)
    assert found("refs/a.jsonl", tmp_path) == ["refs/a.jsonl"]
    assert found("refs/*.jsonl", tmp_path) == ["refs/a.jsonl"]


def test_a_glob_gives_its_matches_in_order_without_hidden_ones(tmp_path):
    put(tmp_path, "r/b.jsonl", "r/a.jsonl", "r/.c.jsonl", "r/d.csv", "r/deep/e.jsonl")
    assert found(tmp_path / "r/*.jsonl", tmp_path) == ["r/a.jsonl", "r/b.jsonl"]
    assert found(tmp_path / "r/**/*.jsonl", tmp_path) == [
        "r/a.jsonl",
        "r/b.jsonl",
        "r/deep/e.jsonl",
    ]
    assert found(f"file://{tmp_path}/r/?.jsonl", tmp_path) == ["r/a.jsonl", "r/b.jsonl"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{}/refs/*.jsonl", "no such file, nothing matches .looked in .*/refs"),
        ("{}/gone.jsonl", "no such file .looked in "),
        ("{}/a**b", "entire path component"),
        ("nonsense://x/y", "nonsense:// cannot be read here"),
        ("s3://bucket/x.jsonl", "s3:// cannot be read here .Install s3fs"),
        ("simplecache::memory://x", "chained URLs|no such file"),
        ("zip://x::https://h/a.zip", "chained URLs"),
        ("https://me:secret@host/x.jsonl", "user name in the address"),
        ("http://127.0.0.1:9/*.jsonl", "a web server cannot be listed"),
    ],
)
def test_what_cannot_be_found_says_why(tmp_path, source, message):
    with pytest.raises(InputError, match=message) as caught:
        locate(source.format(tmp_path))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("revision", ["", "@main", "@0123abc", "@v1.0", "@" + "g" * 40])
def test_a_hub_dataset_needs_a_commit_and_the_error_says_where_to_find_it(revision, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *a, **k: 1 / 0)
    with pytest.raises(InputError, match="owner/name/commits/main lists the commits"):
        place_of(f"hf://datasets/owner/name{revision}/data/*.jsonl")


@pytest.mark.parametrize("source", ["hf://owner/name@" + "a" * 40, "hf://datasets/name", "hf://"])
def test_only_datasets_of_the_hub_are_text_sets(source):
    with pytest.raises(InputError, match="expected hf://datasets/OWNER/NAME@COMMIT"):
        place_of(source)


def test_secrets_of_an_address_are_not_written_down():
    assert shown("https://u:p@h/a/b.jsonl?X-Signature=s#f") == "https://h/a/b.jsonl#f"
    assert shown("hf://datasets/o/n@1/x") == "hf://datasets/o/n@1/x"
    assert shown("/plain/path?") == "/plain/path?"


def test_names_are_as_short_as_they_can_be():
    assert unique_names(["/x/a.jsonl", "https://h/b.jsonl?q=1"]) == ["a.jsonl", "b.jsonl"]
    assert unique_names(["/x/a.jsonl", "/y/a.jsonl", "/x/b"]) == ["x-a.jsonl", "y-a.jsonl", "b"]
    assert unique_names(["/x/A.jsonl", "/y/a.jsonl"]) == ["x-A.jsonl", "y-a.jsonl"]


@given(
    st.lists(
        st.text(st.sampled_from("ab/\\.~\0\n%:*é "), max_size=12).map(lambda t: f"memory://{t}"),
        max_size=8,
    )
)
def test_law_names_are_unique_and_name_a_file_in_their_folder(locations):
    names = unique_names(locations)
    assert len(names) == len(locations) == len({name.casefold() for name in names})
    for name in names:
        assert name
        assert Path("/x", name).parent == Path("/x")
        assert not name.startswith(".")
        assert name.isprintable()
