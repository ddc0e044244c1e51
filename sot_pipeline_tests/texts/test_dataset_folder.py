"""Folders of datasets: repositories with a card, what save_to_disk wrote, plain folders."""

import json

import pyarrow as pa
import pytest

from sot_pipeline.errors import InputError
from sot_pipeline.texts.dataset_folder import choose_files, licence_of, read_card
from sot_pipeline.texts.locate import locate
from sot_pipeline.texts.read import read_text_files, read_texts


def choose(names: list[str], card: str = "", **others: object) -> tuple[list[str], str | None]:
    contents = {"README.md": card.encode()} | {
        name.replace("__", "/").replace("_json", ".json"): json.dumps(value).encode()
        for name, value in others.items()
    }
    listed = [*names, *(name for name, content in contents.items() if content)]
    chosen = choose_files(listed, contents.__getitem__, "set")
    return chosen.files, chosen.licence


def test_without_a_card_every_data_file_counts_in_order():
    names = ["b.jsonl", "a.csv", "x/c.parquet", "notes.txt", ".cache/d.jsonl", "package.json.md",
             "dataset_infos.json", "e.jsonl.gz", "f.arrow"]  # fmt: skip
    assert choose(names) == (["a.csv", "b.jsonl", "e.jsonl.gz", "f.arrow", "x/c.parquet"], None)


def test_the_card_names_files_and_licence():
    card = "---\nlicense: cc-by-4.0\nconfigs:\n- config_name: default\n  data_files: 'data/*.jsonl'\n---\n# A set\n"
    names = ["data/b.jsonl", "data/a.jsonl", "extra.jsonl"]
    assert choose(names, card) == (["data/a.jsonl", "data/b.jsonl"], "cc-by-4.0")


@pytest.mark.parametrize(
    "files",
    [
        "{train: train.jsonl, test: test.jsonl}",
        "[{split: test, path: [test.jsonl]}, {split: train, path: train.jsonl}]",
        "train.jsonl",
        "[./train.jsonl]",
    ],
)
def test_of_several_splits_the_training_one_is_taken(files):
    card = f"---\nconfigs: [{{config_name: only, data_files: {files}}}]\n---\n"
    assert choose(["train.jsonl", "test.jsonl"], card) == (["train.jsonl"], None)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("---\nlicense: [mit\n---\n", r"README.md:\d+: .* is not YAML"),
        ("---\n- a\n- b\n---\n", "is a list"),
        ("---\nconfigs: 3\n---\n", "must be a list of configurations"),
        ("---\nconfigs: [{data_files: {a: x, b: y}}]\n---\n", "several splits .a, b. and none"),
        ("---\nconfigs: [{config_name: a}, {config_name: b}]\n---\n", "several configurations"),
        ("---\nconfigs: [{data_files: 7}]\n---\n", "must name files"),
        ("---\nconfigs: [{data_files: ../../etc/passwd}]\n---\n", "outside the folder"),
        ("---\nconfigs: [{data_files: /etc/passwd}]\n---\n", "outside the folder"),
        ("---\nconfigs: [{data_files: 'https://h/x.jsonl'}]\n---\n", "outside the folder"),
        ("---\nconfigs: [{data_files: 'gone/*.jsonl'}]\n---\n", "and there are none"),
        ("---\nconfigs: [{data_files: 'a**b'}]\n---\n", "is no glob"),
        ("---\nx: " + "[" * 1500 + "\n---\n", "is not YAML"),
    ],
)
def test_a_card_that_misleads_is_an_error(card, message):
    with pytest.raises(InputError, match=message):
        choose(["a.jsonl"], card)


@pytest.mark.parametrize("card", ["# No front matter\n---\nlicense: mit\n---\n", "", "---\n"])
def test_a_card_without_a_block_says_nothing(card):
    assert read_card(card.encode(), "set") == {}


@pytest.mark.parametrize(
    ("stated", "licence"),
    [
        ({"license": "mit"}, "mit"),
        ({"license": ["mit", "apache-2.0"]}, "mit, apache-2.0"),
        ({"license": "other", "license_name": "llama3"}, "other (llama3)"),
        ({"license": {"a": 1}}, None),
        ({"license": " "}, None),
        ({}, None),
    ],
)
def test_licences_as_cards_write_them(stated, licence):
    assert licence_of(stated) == licence


def test_a_folder_without_data_says_what_is_there(tmp_path):
    (tmp_path / "README.md").write_text("hello")
    with pytest.raises(InputError, match=r"holds no data file .found: README.md"):
        locate(str(tmp_path))


def save_to_disk(folder, rows, *, num_shards=2, **state):
    """What `datasets.save_to_disk` leaves: Arrow streams, state.json, dataset_info.json."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{num_shards:05}.arrow" for i in range(num_shards)]
    for number, name in enumerate(names):
        table = pa.Table.from_pylist(rows[number::num_shards])
        with pa.OSFile(str(folder / name), "wb") as out, pa.ipc.new_stream(out, table.schema) as w:
            w.write_table(table)
    files = [{"filename": name} for name in names]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, **state}))
    (folder / "dataset_info.json").write_text(json.dumps({"license": "odc-by"}))
    return folder


ROWS = [{"prompt": f"p{i}", "response": f"r{i}", "extra": i} for i in range(5)]


def test_a_dataset_saved_to_disk_reads_whole(tmp_path):
    found = locate(str(save_to_disk(tmp_path / "set", ROWS)))
    texts = read_text_files({f"{n}": file.location for n, file in enumerate(found)})
    assert texts.rows["prompt"].to_list() == ["p0", "p2", "p4", "p1", "p3"]
    assert texts.file_type == "arrow"
    assert {file.licence for file in found} == {"odc-by"}


def test_of_a_saved_dictionary_of_splits_the_training_one_is_taken(tmp_path):
    for split in ("test", "train"):
        save_to_disk(tmp_path / "set" / split, ROWS, num_shards=1)
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    (found,) = locate(str(tmp_path / "set"))
    assert found.location.endswith("set/train/data-00000-of-00001.arrow")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_indices_data_files": [{"filename": "indices.arrow"}]}, "flatten_indices"),
        ({"_data_files": [{"filename": "../../secret.arrow"}]}, "which is not there"),
        ({"_data_files": []}, "names no data files"),
        ({"_data_files": "x"}, "names no data files"),
    ],
)
def test_a_saved_dataset_that_is_not_whole_is_an_error(tmp_path, state, message):
    folder = save_to_disk(tmp_path / "set", ROWS, **state)
    with pytest.raises(InputError, match=message):
        locate(str(folder))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"\xff" * len(b)])
def test_a_broken_arrow_file_is_an_error(tmp_path, damage):
    (path,) = save_to_disk(tmp_path / "set", ROWS, num_shards=1).glob("*.arrow")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="cannot be read as Arrow"):
        read_texts(path)


def test_offsets_of_an_arrow_file_are_not_trusted(tmp_path):
    rows = [{"prompt": "abc", "response": "r"}]
    (path,) = save_to_disk(tmp_path / "set", rows, num_shards=1).glob("*.arrow")
    before, true, after = path.read_bytes().rpartition(b"\0\0\0\0\3\0\0\0")
    assert true, "the offsets of `prompt` are 0 and 3"
    path.write_bytes(before + b"\0\0\0\0\0\0\0\x40" + after)
    with pytest.raises(InputError, match=r"cannot be read as Arrow .*offset"):
        read_texts(path)
