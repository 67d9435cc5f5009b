"""Dependencies as sbatch reads them, with tasks in place of jobs."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.models.dependency import (
    KINDS,
    MAX_CANDIDATES,
    Dependency,
    DependencyFault,
    Term,
    list_candidates,
    parse_dependency,
)

UUID = "123e4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize(
    "text",
    [
        "afterok:1",
        "afterok:1:2_3:4_*",
        "after:1+5:2,singleton",
        "afterany:1?afterok:2",
        "4711",
        "nonsense",
        "",
    ],
)
def test_a_text_with_job_ids_alone_has_no_candidates(text: str) -> None:
    assert list_candidates(text) == []


@pytest.mark.parametrize(
    ("text", "known", "terms"),
    [
        (f"afterok:{UUID}", {UUID}, [("afterok", UUID, True, None)]),
        ("AfterOK:a:b", {"a", "b"}, [("afterok", "a", True, None), ("afterok", "b", True, None)]),
        ("afterok:a:b", {"a", "b", "a:b"}, [("afterok", "a:b", True, None)]),
        ("afterok:a:1", {"a"}, [("afterok", "a", True, None), ("afterok", "1", False, None)]),
        ("afterok:a:1", {"a:1"}, [("afterok", "a:1", True, None)]),
        ("afterok:1:a", {"1:a", "a"}, [("afterok", "1", False, None), ("afterok", "a", True, None)]),
        ("afterok:a::b", {"a::b"}, [("afterok", "a::b", True, None)]),
        ("afterok:12_3:a_3", {"a_3"}, [("afterok", "12_3", False, None), ("afterok", "a_3", True, None)]),
        ("after:a+5:2", {"a"}, [("after", "a", True, 5), ("after", "2", False, 5)]),
        ("after:a+0:b+0009999999", {"a", "b"}, [("after", "a", True, 0), ("after", "b", True, 9999999)]),
        ("after:a:b+5:c:d", {"a:b", "c:d"}, [("after", "a:b", True, 5), ("after", "c:d", True, 5)]),
        (
            "afterany:123:a, afternotok:b ,singleton",
            {"a", "b"},
            [
                ("afterany", "123", False, None),
                ("afterany", "a", True, None),
                ("afternotok", "b", True, None),
            ],
        ),
        ("afterok:gone:a", {"a"}, [("afterok", "gone", True, None), ("afterok", "a", True, None)]),
    ],
)
def test_the_longest_known_uuid_counts(
    text: str, known: set[str], terms: list[tuple[str, str, bool, int | None]]
) -> None:
    assert known - {"1:a"} <= set(list_candidates(text))
    parsed = parse_dependency(text, known)
    assert [part for part in parsed.parts if isinstance(part, Term)] == [Term(*term) for term in terms]
    assert ("singleton" in parsed.parts) == ("singleton" in text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("afterokay:a", "must have a kind before each colon, not afterokay; did you mean afterok?"),
        ("x:a", "not x; it is one of after, afterany"),
        (":a", "must have a kind before each colon"),
        ("afterok:a:", "must have a job or a task after each colon"),
        ("afterok:a+x", "minutes after each [+]"),
        ("after:a+1+2", "minutes after each [+]"),
        ("after:a+10000000", "minutes after each [+], at most 9999999"),
        (f"after:a+{'9' * 5000}", "minutes after each [+], at most 9999999"),
        ("afterok:a,afterany:b?afterok:c", "must not have both , "),
    ],
)
def test_a_text_that_sbatch_does_not_read_is_a_fault(text: str, fault: str) -> None:
    with pytest.raises(DependencyFault, match=fault):
        parse_dependency(text, {"a", "b", "c"} & set(list_candidates(text)))


def test_too_many_readings_are_a_fault() -> None:
    uuids = [f"task-{number}-{UUID}" for number in range(300)]
    assert len(list_candidates("afterok:" + ":".join(uuids))) < MAX_CANDIDATES
    for ids in ([f"x{number}" for number in range(1000)], ["x"] * 4000):
        with pytest.raises(DependencyFault, match="names too many tasks"):
            list_candidates("afterok:" + ":".join(ids))


TERMS = st.builds(
    Term,
    st.sampled_from(KINDS),
    st.from_regex(r"[a-z][a-z0-9._-]{0,9}|[0-9]{1,5}(_[0-9]{1,2})?", fullmatch=True),
    st.just(False),
    st.none() | st.integers(0, 99),
)


@settings(deadline=None)
@given(parts=st.lists(TERMS, min_size=1, max_size=5), is_any=st.booleans())
def test_a_rendered_dependency_is_read_as_the_same_one(parts: list[Term], is_any: bool) -> None:
    is_job = re.compile(r"[0-9]+(_[0-9]+)?")
    wanted = [Term(part.kind, part.id, not is_job.fullmatch(part.id), part.minutes) for part in parts]
    text = Dependency(tuple(wanted), is_any and len(parts) > 1).render()
    known = {part.id for part in parts}
    assert parse_dependency(text, known).parts == tuple(wanted)
