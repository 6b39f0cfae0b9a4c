from lowtide.dispatch.circuit import Circuit, Trouble


def opened() -> Circuit:
    circuit = Circuit(wait_s=1.0, wait_max_s=4.0)
    assert circuit.fail(Trouble.UNREACHABLE, 100.0, probe=False)
    return circuit


def test_a_closed_circuit_lets_everything_through() -> None:
    circuit = Circuit(1.0, 4.0)
    assert all(circuit.lets_through(0.0) and not circuit.started() for _ in range(3))


def test_an_open_circuit_lets_one_probe_through_once_its_wait_is_over() -> None:
    circuit = opened()
    assert not circuit.lets_through(100.9)
    assert circuit.lets_through(101.0)
    assert circuit.started()
    assert not circuit.lets_through(200.0)


def test_failed_probes_double_the_wait_up_to_its_maximum() -> None:
    circuit, now_s, waits = opened(), 100.0, []
    for _ in range(5):
        waits.append(circuit.wait_left_s(now_s))
        now_s += waits[-1]
        assert circuit.started()
        assert not circuit.fail(Trouble.UNREACHABLE, now_s, probe=True)
    assert waits == [1.0, 2.0, 4.0, 4.0, 4.0]


def test_failures_of_older_tries_do_not_lengthen_the_wait() -> None:
    circuit = opened()
    for _ in range(64):
        assert not circuit.fail(Trouble.UNREACHABLE, 100.5, probe=False)
    assert circuit.lets_through(101.0)


def test_a_whole_reply_closes_the_circuit_and_forgets_the_waits() -> None:
    circuit = opened()
    assert circuit.whole_reply()
    assert circuit.lets_through(100.0)
    circuit.fail(Trouble.WENT_DOWN, 200.0, probe=False)
    assert circuit.wait_left_s(200.0) == 1.0


def test_an_aborted_probe_makes_room_for_another() -> None:
    circuit = opened()
    circuit.started()
    circuit.gave_up()
    assert circuit.lets_through(101.0)
