"""YAML as the user's files have it: what is read, where it stands, and what is refused."""

from __future__ import annotations

import time

import pytest

from plans.desired.source import Document, field_name, read_documents


def read(text: str) -> Document:
    source = read_documents("f.yaml", text)
    assert source.problems == ()
    (document,) = source.documents
    return document


def refused(text: str) -> list[str]:
    return [str(problem) for problem in sorted(read_documents("f.yaml", text).problems)]


def test_values_and_keys_have_their_own_positions() -> None:
    document = read("a:\n  b: [x, {c: yes}]\n")
    assert document.value == {"a": {"b": ["x", {"c": True}]}}
    assert document.position(("a", "b", 1, "c")) == (2, 14)
    assert document.key_position(("a", "b", 1, "c")) == (2, 11)
    assert document.position(("a", "missing", "deeper")) == (2, 3)
    assert document.key_position(("a", "missing")) == (1, 1)


def test_documents_keep_the_lines_of_the_file_and_empty_ones_are_left_out() -> None:
    source = read_documents("f.yaml", "---\n# nothing\n---\na: 1\n---\n---\nb: 2\n")
    assert [(d.value, d.position(())) for d in source.documents] == [({"a": 1}, (4, 1)), ({"b": 2}, (7, 1))]


def test_an_alias_stands_for_what_its_anchor_names() -> None:
    assert read("a: &x {b: [1]}\nc: *x\n").value == {"a": {"b": [1]}, "c": {"b": [1]}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-15T01:00:00Z", "2026-01-15T01:00:00Z"),
        ("=", "="),
        ("!!str 010", "010"),
        ("0900", "0900"),
        ("on", True),
        ("0x1F", 31),
        ("1e3", "1e3"),
        ("0.003", 0.003),
        ("~", None),
    ],
)
def test_scalars_are_read_as_yaml_1_1_has_them_but_dates_stay_text(text: str, value: object) -> None:
    assert read(f"a: {text}\n").value == {"a": value}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: 1\nb: 2\na: 3\n", ["f.yaml:3:1: a: this key is given twice, first in line 1. Remove one."]),
        (
            "a: {b: 1, b: 2, b: 3}\n",
            [
                "f.yaml:1:11: a.b: this key is given twice, first in line 1. Remove one.",
                "f.yaml:1:17: a.b: this key is given twice, first in line 1. Remove one.",
            ],
        ),
        ("a: !Ref b\n", ["f.yaml:1:4: a: found the tag !Ref, expected a plain value. Remove the tag."]),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            [
                "f.yaml:1:4: a: found the tag !!python/object/apply:os.system, expected a plain value. "
                "Remove the tag."
            ],
        ),
        ("a: !!set {b}\n", ["f.yaml:1:4: a: found the tag !!set, expected a plain value. Remove the tag."]),
        ("!x k: v\n", ["f.yaml:1:1: found the tag !x, expected a plain value. Remove the tag."]),
        (
            "a: &x {b: 1}\nc:\n  <<: *x\n",
            ["f.yaml:3:3: c: merge keys ('<<') are not supported. Write the fields out."],
        ),
        (
            "a: {on: 1}\n",
            ['f.yaml:1:5: a: found the key on (a YAML 1.1 boolean), expected text: quote it, as "on".'],
        ),
        ("[a]: 1\n", ["f.yaml:1:1: found a key that is a list or a mapping, expected text."]),
        (
            "a: !!int many\n",
            ["f.yaml:1:4: a: found 'many', which is no usable number or boolean. Correct it."],
        ),
        (
            f"a: {'9' * 100}\n",
            [f"f.yaml:1:4: a: found '{'9' * 37}...', which is no usable number or boolean. Correct it."],
        ),
        (
            "a: 1\n\tb: 2\n",
            ["f.yaml:2:1: found a tab in the indentation; YAML takes only spaces there. Replace it."],
        ),
        (
            "a: [1\n",
            [
                "f.yaml:2:1: not valid YAML: expected ',' or ']', but got '<stream end>' (while parsing a "
                "flow sequence, begun in line 1). Correct it; what follows was not read."
            ],
        ),
        (
            "a: b: c\n",
            [
                "f.yaml:1:5: not valid YAML: mapping values are not allowed here. Correct it; what "
                "follows was not read."
            ],
        ),
        (
            "a: *x\n",
            ["f.yaml:1:4: not valid YAML: found undefined alias 'x'. Correct it; what follows was not read."],
        ),
        (
            "a: 1\nb: x\x07\n",
            ["f.yaml:2:5: not valid YAML: found the control character U+0007. Remove it."],
        ),
        (
            "a: &x [*x]\n",
            [
                "f.yaml:1:4: not valid YAML: an anchor whose value contains itself. Correct it; what "
                "follows was not read."
            ],
        ),
        (
            "[" * 60 + "]" * 60,
            [
                "f.yaml:1:51: not valid YAML: nested more than 50 levels deep. Correct it; what "
                "follows was not read."
            ],
        ),
    ],
)
def test_what_is_refused_has_a_place(text: str, lines: list[str]) -> None:
    assert refused(text) == lines


def test_documents_before_malformed_yaml_are_still_read() -> None:
    source = read_documents("f.yaml", "a: 1\n---\nb: [\n")
    assert [document.value for document in source.documents] == [{"a": 1}]
    assert len(source.problems) == 1


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(40, 10), "aliases that expand to more than 100000 values"),
        (bomb(2000, 1), "nested more than 50 levels deep"),
        ("[" * 100_000, "nested more than 50 levels deep"),
    ],
)
def test_a_bomb_is_refused_at_once(text: str, said: str) -> None:
    began = time.process_time()
    (line,) = refused(text)
    assert said in line
    assert time.process_time() - began < 5


def test_a_long_file_without_aliases_is_no_bomb() -> None:
    items = ", ".join(["x"] * 101_000)
    assert len(read(f"a: [{items}]\n").value["a"]) == 101_000


def test_fields_are_written_as_people_write_them() -> None:
    assert field_name(("spec", "order", 1)) == "spec.order[1]"
    assert field_name(("spec", "nodes", "example.com/rack")) == "spec.nodes[example.com/rack]"
    assert field_name(("spec", "nodes", "a\nb")) == "spec.nodes['a\\nb']"
