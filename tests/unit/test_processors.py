"""Which processor a worker gets."""

from app.processors import choose_processor, list_allowed_processors, pin_to_processor


def test_workers_get_different_processors_as_long_as_there_are_some() -> None:
    taken: list[int] = []
    for _ in range(4):
        taken.append(choose_processor({2, 3, 7, 9}, taken))
    assert taken == [2, 3, 7, 9]


def test_further_workers_share_the_processors_evenly() -> None:
    taken: list[int] = []
    for _ in range(5):
        taken.append(choose_processor({0, 1}, taken))
    assert taken == [0, 1, 0, 1, 0]


def test_a_new_worker_gets_the_processor_of_one_that_has_ended() -> None:
    assert choose_processor({0, 1, 2}, [0, 2]) == 1


def test_servers_begin_with_different_processors() -> None:
    assert [choose_processor({4, 5, 6}, [], first) for first in (0, 1, 2, 3)] == [4, 5, 6, 4]


def test_processors_that_this_process_may_not_use_do_not_count() -> None:
    assert choose_processor({1}, [0, 1, 1]) == 1


def test_a_processor_that_does_not_exist_is_reported_and_nothing_changes() -> None:
    allowed = list_allowed_processors()
    assert isinstance(pin_to_processor(1023), OSError)
    assert list_allowed_processors() == allowed
