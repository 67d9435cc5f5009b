"""Sizes and times in sbatch's notation; the numbers are those that sbatch of 22.05 and 24.11 made of them."""

import pytest

from app.models.sbatch_values import parse_memory_mb, parse_switches, parse_time_minutes, parse_time_seconds
from app.models.slurm_options import SlurmOptions


@pytest.mark.parametrize(
    ("text", "megabytes"),
    [
        *(("0", 0), ("0G", 0), ("0K", 0), ("4", 4), ("04G", 4096), ("4G", 4096), ("4g", 4096), ("4GB", 4096)),
        *(("4gb", 4096), ("1T", 2**20), ("512k", 1), ("1000K", 1), ("1025K", 2), ("30M", 30)),
    ],
)
def test_memory_size_is_read_in_megabytes(text: str, megabytes: int) -> None:
    assert parse_memory_mb(text) == megabytes


@pytest.mark.parametrize("text", ["", "G", "1.5G", "4 G", "4GiB", "1P", "-1", "4B", "\u0664G"])
def test_memory_size_that_sbatch_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no memory size"):
        parse_memory_mb(text)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        *(("0", 0), ("00", 0), ("0:00", 0), ("90", 90), ("90:30", 91), ("0:30", 1), ("30:61", 32)),
        *(("1:30:00", 90), ("0:0:10", 1), ("1-2", 1560), ("1-2:3", 1563), ("1-2:3:4", 1564), ("2-0", 2880)),
        *(("1-02:30:00", 1590), ("1-30:90:90", 3332), ("UNLIMITED", 0), ("Infinite", 0)),
    ],
)
def test_time_is_read_in_minutes_rounded_up(text: str, minutes: int) -> None:
    assert parse_time_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "+5", "1:2:3:4", "5:", ":30", "1-:30", "-", "1d", "1h", "90 "])
def test_time_that_sbatch_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        parse_time_seconds(text)


@pytest.mark.parametrize(
    ("given", "count", "seconds"),
    [
        *((1, 1, None), ("2", 2, None), ("01", 1, None), ("1@2", 1, 120), ("1@0:10", 1, 10), ("1@0", 1, 0)),
        *(("2@1-0", 2, 86400), ("1@0:30:00", 1, 1800), ("1@UNLIMITED", 1, None)),
    ],
)
def test_switches_are_read_as_count_and_longest_wait(
    given: int | str, count: int, seconds: int | None
) -> None:
    assert parse_switches(given) == (count, seconds)


@pytest.mark.parametrize("name", SlurmOptions.model_fields)
def test_numbers_at_the_limits_of_the_schema_are_accepted(name: str) -> None:
    schema = SlurmOptions.model_json_schema()["properties"][name]
    for form in (item for one in schema.get("anyOf", ()) for item in (one, *one.get("anyOf", ()))):
        for limit in {"minimum", "maximum"} & form.keys():
            assert SlurmOptions.model_validate({name: form[limit]})
