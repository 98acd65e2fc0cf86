from infrasight.node.delivery.sending import Sending


def test_each_batch_is_stored_or_failed_and_one_that_is_sent_again_is_both() -> None:
    now = 100.0
    sending = Sending(clock=lambda: now)
    sending.sent(1, "open")
    sending.sent(2, "open")
    sending.sent(3, "execve")
    now = 100.2
    sending.sent(1, "open")  # another piece of it: it is under way since the first
    sending.settled(1, stored=True)
    sending.settled(3, stored=False)
    assert (sending.stored, sending.failed) == ({"open": 1}, {"execve": 1})
    sending.broken()
    sending.sent(2, "open")
    now = 102.2
    sending.settled(2, stored=True)
    sending.settled(2, stored=True)  # told twice
    sending.settled(7, stored=True)  # of before the connection broke
    sending.broken()
    assert (sending.stored, sending.failed) == ({"open": 2}, {"execve": 1, "open": 1})
    assert sending.latency.keys() == {"open"}
    assert round(sending.latency["open"].sum, 6) == 2.2
    assert dict(sending.latency["open"].buckets())["0.25"] == 1
