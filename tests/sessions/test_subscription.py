"""Subscription: delivers an event log to one client, every event once, in order, as fast as it reads."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from pfsb.applications.interfaces import Event
from pfsb.sessions.subscription import EVENTS_AT_ONCE, Subscription


class Log:
    """An event log whose events are their numbers. Records how many events are requested at once."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.largest = 0

    def events(self, first: int, limit: int) -> Sequence[Event]:
        self.largest = max(self.largest, limit)
        return [Event("E", (("index", i),)) for i in range(first, min(first + limit, self.length + 1))]


class FollowingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.log = Log(1_000)
        self.told: list[int] = []
        self.stopped: list[Subscription] = []
        self.failures: list[Exception] = []
        self.ends: list[str] = []

    def subscribe(self, first: int = 1) -> Subscription:
        return Subscription(self.log, first, self.deliver, self.failures.append, self.ends.append, self.stopped.append)

    def deliver(self, event: Event) -> None:
        self.told.append(int(event.fields[0][1]))

    def test_released_events_are_told_in_order_and_once(self) -> None:
        """Delivery begins with the first event that was asked for, in order, without gaps or repetitions."""
        subscription = self.subscribe(3)
        for length in (2, 5, 5, 9):
            subscription.release(length)
        self.assertEqual(self.told, list(range(3, 10)))

    def test_events_behind_the_gate_are_not_told(self) -> None:
        """The log may hold events that are not on disk yet: only released ones may leave the server."""
        self.subscribe().release(4)
        self.assertEqual(self.told, [1, 2, 3, 4])

    def test_end_of_the_log_is_told_once_and_nothing_after_it(self) -> None:
        """A subscription whose log ends tells the reason once, also while it is paused, and no event any more."""
        subscription = self.subscribe()
        subscription.release(2)
        subscription.pause()
        subscription.release(4)
        subscription.end("no chat")
        subscription.resume()
        subscription.release(5)
        self.assertEqual((self.told, self.ends, self.stopped), ([1, 2], ["no chat"], [subscription]))
        self.assertEqual((subscription.next, self.failures), (3, []))
        subscription.end("no chat")
        self.assertEqual(self.ends, ["no chat"])

    def test_subscriber_that_fails_at_the_end_keeps_no_other_from_being_told(self) -> None:
        """The exception of a subscriber that is told the end goes to its `failed`, and not to the log's other
        subscribers."""
        ended = mock.Mock(side_effect=ZeroDivisionError)
        subscription = Subscription(self.log, 1, self.deliver, self.failures.append, ended, self.stopped.append)
        subscription.end("no chat")
        self.assertEqual([*map(type, self.failures)], [ZeroDivisionError])

    def test_event_that_would_be_other_lines_ends_the_subscription(self) -> None:
        """An event with a line end in its name or in the name of a field could not be printed as one line: the
        subscription ends, since the client would miss that event."""
        for wrong in (Event("TWO WORDS"), Event("LINE\n* OK"), Event("E", (("a b", 1),)), Event("E", (("a", None),))):  # type: ignore[arg-type]
            self.patch(self.log, "events", lambda first, limit, wrong=wrong: [wrong])
            self.subscribe().release(1)
        self.assertEqual((self.told, len(self.stopped), [*map(type, self.failures)]), ([], 4, [ValueError] * 4))

    def test_event_that_the_application_cannot_give_ends_the_subscription(self) -> None:
        """If an application has no event in the place of a released one, the subscription ends with an error instead of
        waiting for ever."""
        for wrong in (mock.Mock(side_effect=KeyError), mock.Mock(return_value=()), mock.Mock(return_value=7)):
            self.patch(self.log, "events", wrong)
            subscription = self.subscribe()
            subscription.release(1)
            subscription.release(2)
            self.assertEqual((wrong.call_count, self.stopped[-1]), (1, subscription))
        self.assertEqual((self.told, [*map(type, self.failures)]), ([], [KeyError, LookupError, TypeError]))

    def test_nothing_is_told_while_paused(self) -> None:
        """While a subscription is paused no event is delivered; events stay in the log, and need no queue."""
        subscription = self.subscribe()
        subscription.pause()
        subscription.release(200)
        self.assertEqual(self.told, [])
        subscription.resume()
        self.assertEqual(self.told, list(range(1, 201)))

    def test_pause_in_the_middle_stops_at_once(self) -> None:
        """When the transport asks for a pause in the middle of a delivery, no further event is written."""
        subscription = self.subscribe()

        def deliver(event: Event) -> None:
            self.deliver(event)
            if len(self.told) == 7:
                subscription.pause()

        subscription.deliver = deliver
        subscription.release(100)
        self.assertEqual(self.told, list(range(1, 8)))
        subscription.resume()
        self.assertEqual(self.told, list(range(1, 101)))

    def test_resume_inside_deliver_repeats_nothing(self) -> None:
        """A transport that pauses and resumes inside `deliver`, as often as it likes, gets no event twice."""
        subscription = self.subscribe()

        def deliver(event: Event) -> None:
            self.deliver(event)
            subscription.pause()
            subscription.resume()

        subscription.deliver = deliver
        subscription.release(1_000)
        self.assertEqual(self.told, list(range(1, 1_001)))

    def test_nothing_is_told_after_stop(self) -> None:
        """Stopping inside `deliver` ends the delivery of events that were already fetched."""
        subscription = self.subscribe()

        def deliver(event: Event) -> None:
            self.deliver(event)
            subscription.stop()

        subscription.deliver = deliver
        subscription.release(100)
        subscription.release(200)
        subscription.resume()
        self.assertEqual((self.told, self.stopped), ([1], [subscription]))

    def test_subscriber_that_fails_is_told_no_more(self) -> None:
        """A subscriber that raises gets no more events, since it would have a gap; the server goes on."""
        subscription = self.subscribe()

        def deliver(event: Event) -> None:
            self.deliver(event)
            raise ZeroDivisionError

        subscription.deliver = deliver
        subscription.release(5)
        subscription.release(9)
        self.assertEqual((self.told, self.stopped), ([1], [subscription]))
        self.assertEqual([*map(type, self.failures)], [ZeroDivisionError])

    def test_log_is_asked_for_a_few_events_at_once(self) -> None:
        """The log is asked for a few events at once: a long log is not copied for one subscriber."""
        self.subscribe().release(1_000)
        self.assertEqual((len(self.told), self.log.largest), (1_000, EVENTS_AT_ONCE))
