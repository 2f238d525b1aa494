"""Faults do what their names say, and are drawn as the profile says (docs/testing.rst)."""

from __future__ import annotations

import random
from collections import Counter

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from pfsb.paxos.messages import Alive, State
from pfsb.paxos.storage_identity import StorageWasReplaced
from pfsb.simulator.checkers.violation import Violation
from pfsb.simulator.cluster.cluster import SimulatedCluster
from pfsb.simulator.cluster.marks import Marks
from pfsb.simulator.faults.all_faults import AllFaults
from pfsb.simulator.faults.foreign_frames import require_no_change
from pfsb.simulator.faults.parameters import Parameters, draw_parameters
from pfsb.simulator.faults.plan import Fault, draw_faults
from pfsb.simulator.faults.profiles import FAMILIES, PROFILES
from pfsb.simulator.runs.bounds_checker import TIMERS_MAX, check_bounds
from pfsb.simulator.runs.run import Plan, Run
from pfsb.simulator.workload.listeners import SimulatedListener
from pfsb.simulator.workload.read_checker import ReadHistory
from pfsb.transports.frames import FrameCodec, FrameIdentity, cluster_digest
from pfsb.transports.wire import encode
from tests.long import long


def drawn(seed: int, profile: str = "mixed") -> Parameters:
    return draw_parameters(random.Random(seed), PROFILES[profile], None, None, random.Random(f"{seed}/ids"))


class ParametersTests(SynchronousTestCase):
    def test_a_quarter_of_the_seeds_switches_each_family_off(self) -> None:
        """Each family of faults is off in a quarter of the seeds: one that is always on could hide defects that another
        would show."""
        on = Counter(family for seed in range(400) for family in drawn(seed).families)
        for family in FAMILIES:
            self.assertTrue(260 < on[family] < 340, f"{family}: {on[family]}")

    def test_profile_has_its_own_faults_only(self) -> None:
        """A profile draws its own faults only: the star profile draws stars and healing."""
        parameters = evolve(drawn(1, "star"), seconds=100.0)
        self.assertEqual({fault.kind for fault in draw_faults(random.Random(1), parameters)}, {"star", "heal"})

    def test_onlookers_have_no_name_and_only_read(self) -> None:
        """Onlookers of a profile only read; in other profiles all users have the same vocabulary."""
        run = Run(Plan(1, "keyholes"))
        users = run.population.users
        onlookers = [user for user in users if user.vocabulary.share_of_reads == 1.0]
        self.assertEqual(len(onlookers), PROFILES["keyholes"].onlookers)
        self.assertEqual({user.name for user in onlookers}, {""})
        self.assertLess(len(onlookers), len(users))
        mixed = Run(Plan(1))
        self.assertEqual({user.vocabulary for user in mixed.population.users}, {mixed.parameters.vocabulary})

    @long
    def test_every_profile_draws_six_and_eight_servers_and_ids_with_gaps(self) -> None:
        """A share of the seeds has a size that is rare, and one of five has ids such as 2, 5 and 9."""
        seeds = 400
        for profile in PROFILES:
            worlds = [drawn(seed, profile) for seed in range(seeds)]
            sizes = Counter(len(world.ids) for world in worlds)
            expected = seeds * PROFILES[profile].share_of_rare_sizes
            self.assertTrue(0.4 * expected < sizes[6] + sizes[8] < 2 * expected, f"{profile}: {sizes}")
            self.assertGreater(min(sizes[6], sizes[8]), 0, f"{profile}: {sizes}")
            gaps = sum(world.ids != tuple(range(len(world.ids))) for world in worlds)
            self.assertTrue(50 < gaps < 110, f"{profile}: {gaps}")
            for world in worlds:
                self.assertEqual(world.ids, tuple(sorted(set(world.ids))))
                self.assertLessEqual(world.home_servers, set(world.ids))

    def test_ids_and_rare_sizes_leave_the_other_parameters_as_they_are(self) -> None:
        """Ids with gaps and rare sizes are drawn by random numbers of their own, so that all other parameters of a seed
        stay as they are."""

        def drawn_with(seed: int, ids_seed: int) -> Parameters:
            return draw_parameters(random.Random(seed), PROFILES["mixed"], 3, None, random.Random(ids_seed))

        for seed in range(20):
            worlds = [drawn_with(seed, ids_seed) for ids_seed in range(20)]
            self.assertGreater(len({world.ids for world in worlds}), 1)
            first, *others = [evolve(world, ids=(), home_servers=frozenset()) for world in worlds]
            self.assertEqual(others, [first] * len(others))

    def test_seldom_messages_let_half_of_the_rounds_through_at_every_size(self) -> None:
        """A majority of any size gets all messages of one round in half of the cases."""
        for servers in range(2, 10):
            parameters = draw_parameters(random.Random(1), PROFILES["promises"], servers, None, random.Random(1))
            for kind in PROFILES["promises"].seldom:
                of_one = 1 - parameters.lasting[kind].loss
                self.assertAlmostEqual(of_one ** (servers // 2), 0.5)

    def test_faults_are_numbered_in_order_of_time(self) -> None:
        """The faults of a run are numbered in the order of their times; the options of a repeated run use these
        numbers."""
        faults = draw_faults(random.Random(1), evolve(drawn(2), seconds=30.0))
        self.assertEqual([fault.number for fault in faults], list(range(len(faults))))
        self.assertEqual(faults, tuple(sorted(faults, key=lambda fault: fault.at)))


class TroubleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cluster = SimulatedCluster(self.id(), 5)
        self.cluster.run_until(self.cluster.has_leader)
        self.marks = Marks()
        self.injector = AllFaults(self.cluster, drawn(0), self.marks)

    def happen(self, kind: str, number: int = 0) -> None:
        self.injector.schedule([Fault(number, self.cluster.now, "any", kind)])
        self.cluster.run(0.0)

    def links(self) -> set[tuple[int, int]]:
        """The links that are not cut."""
        ids = self.cluster.ids
        return {(a, b) for a in ids for b in ids if a != b and not self.cluster.network.link(a, b).cut}

    def test_hub_of_a_star_does_not_lead(self) -> None:
        """The hub of a star is not the leader, so that the leader reaches one follower only."""
        for number in range(10):
            self.happen("star", number)
            links = self.links()
            hubs = [i for i in self.cluster.ids if all(i in link for link in links)]
            self.assertEqual(len(links), 8)
            self.assertNotIn(0, hubs)

    def test_chain_has_two_ends(self) -> None:
        """In a chain two servers reach one other server each, all others two."""
        self.happen("chain")
        reach = Counter(a for a, _ in self.links())
        self.assertEqual(sorted(reach.values()), [1, 1, 2, 2, 2])

    def test_deaf_server_is_heard_and_hears_nobody(self) -> None:
        for number, kind in enumerate(("deaf", "deaf", "deaf_leader")):
            self.happen(kind, number)
            links = self.links()
            (deaf,) = [i for i in self.cluster.ids if not any(b == i for _, b in links)]
            self.assertEqual(len(links), 16)
            self.assertEqual(len([link for link in links if link[0] == deaf]), 4)
        self.assertEqual(deaf, 0)

    def test_mute_leader_hears_and_is_not_heard(self) -> None:
        """A mute leader gets all messages, and none of its own arrive."""
        self.happen("mute_leader")
        self.assertFalse([link for link in self.links() if link[0] == 0])
        self.assertEqual(len([link for link in self.links() if link[1] == 0]), 4)

    def test_keyholes_are_those_of_one_server(self) -> None:
        """The selective links of a fault lead to one server, from it, or both, and let the same kinds through."""
        ways = set()
        for number in range(20):
            self.happen("keyhole", number)
            selective_links = self.cluster.network.selective_links
            ends = Counter(end for link in selective_links for end in link)
            one, links = ends.most_common(1)[0]
            self.assertEqual(links, len(selective_links))
            self.assertEqual(len(set(selective_links.values())), 1)
            ways.add((any(a == one for a, _ in selective_links), any(b == one for _, b in selective_links)))
        self.assertEqual(ways, {(True, True), (True, False), (False, True)})

    def test_leader_behind_a_keyhole_is_the_leader(self) -> None:
        """A keyhole of the leader makes links of the leader selective, and healing removes them."""
        self.happen("keyhole_of_leader")
        self.assertTrue(all(0 in link for link in self.cluster.network.selective_links))
        self.happen("heal")
        self.assertEqual(self.cluster.network.selective_links, {})

    def test_links_stopped_one_by_one_are_all_restored(self) -> None:
        """Links that are cut one by one are all mended in the end."""
        self.happen("one_by_one")
        fewest = 20
        for _ in range(200):
            self.cluster.run(0.05)
            fewest = min(fewest, len(self.links()))
        self.assertEqual(fewest, 0)
        self.assertEqual(len(self.links()), 20)

    def test_server_dies_between_two_frames_of_one_turn(self) -> None:
        """A server that crashes between two frames of one turn has sent some of its messages, and not the others."""
        self.cluster.doom(0, frames=2)
        before = self.cluster.network.frames
        self.cluster.network.observers.append(lambda sender, to, messages: None)
        while self.cluster.is_running(0):
            self.cluster.step()
        self.assertGreaterEqual(self.cluster.network.frames, before + 2)
        self.cluster.restart(0)
        self.cluster.run(1)

    def test_ceased_trouble_restarts_nobody(self) -> None:
        """After `cease` no fault restarts a server."""
        self.happen("crash")
        self.injector.cease()
        self.cluster.run(10)
        self.assertEqual(len(self.cluster.running_ids), 4)

    def test_server_in_a_loop_of_crashes_dies_again(self) -> None:
        """In a loop of crashes a server crashes several times, and stays up in the end."""
        self.happen("crash_loop")
        self.cluster.run(20)
        *others, incarnations = sorted(server.incarnations for server in self.cluster.servers.values())
        self.assertEqual(others, [1, 1, 1, 1])
        self.assertTrue(3 <= incarnations <= 6, incarnations)
        self.assertEqual(len(self.cluster.running_ids), 5)

    def test_crash_in_write_keeps_a_part_of_it(self) -> None:
        """After a crash in a write, the first records of the group are on disk, and the others are not."""
        self.happen("crash_in_write")
        for number in range(1, 6):
            for server_id in self.cluster.running_ids:
                self.cluster.submit(server_id, f"client-{server_id}", number)
            self.cluster.run(0.2)
        self.assertEqual(self.marks.counts["torn group on disk"], 1)

    def test_drained_server_stops_and_comes_back(self) -> None:
        """A drained server stops, and is started some seconds later."""
        self.happen("drain_leader")
        self.cluster.run(1)
        self.assertEqual(self.cluster.running_ids, [1, 2, 3, 4])
        self.cluster.run(10)
        self.assertEqual(self.cluster.running_ids, [0, 1, 2, 3, 4])

    def test_hole_is_left_and_filled(self) -> None:
        """A hole that a leader has left is filled by the next leader, which orders the update above it."""
        self.happen("leave_a_hole")
        self.cluster.submit(0, "a", 1)
        self.cluster.submit(1, "b", 1)
        self.cluster.run_until(lambda: self.cluster.aru(1) >= 2)
        self.assertEqual(self.cluster.executed(1)[0][0], 2)

    def test_leader_dies_when_the_next_one_has_missed_something(self) -> None:
        """The fault `laggard_leads` isolates the next leader until the present one crashes."""
        self.happen("laggard_leads")
        self.cluster.submit(2, "a", 1)
        self.cluster.run_until(lambda: not self.cluster.is_running(0))
        self.assertEqual((self.cluster.aru(1), self.cluster.aru(2)), (0, 1))

    def test_clock_that_is_set_counts_from_the_next_start_on(self) -> None:
        """When the wall clock of a machine is set, a running server keeps its steady clock, and has the new time from
        its next start on."""
        before = [self.cluster.server_clock(i).seconds() - self.cluster.now for i in self.cluster.ids]
        self.happen("wall_clock")
        self.assertEqual([self.cluster.server_clock(i).seconds() - self.cluster.now for i in self.cluster.ids], before)
        offsets = [server.clock_offset for server in self.cluster.servers.values()]
        changed = next(i for i in self.cluster.ids if offsets[i])
        self.cluster.crash(changed)
        self.cluster.restart(changed)
        self.assertAlmostEqual(self.cluster.server_clock(changed).seconds() - self.cluster.now, offsets[changed])

    def test_kind_of_message_is_late_until_it_is_no_more(self) -> None:
        """After the fault `late_kind` messages of one kind are late until the fault `no_more_moods` happens."""
        self.happen("late_kind")
        self.assertEqual(len(self.cluster.network.passing_faults), 1)
        self.happen("no_more_moods")
        self.assertEqual(self.cluster.network.passing_faults, {})

    def test_majority_keeps_its_disks(self) -> None:
        """Faults may empty the disks of two of five servers; both servers find out, and stop."""
        self.cluster.expected_failures = (StorageWasReplaced,)
        self.cluster.run(1)
        for number in range(5):
            self.happen("lose_disk", number)
            self.cluster.run(5)
        self.assertEqual(len(self.cluster.amnesiacs), 2)
        self.assertEqual(set(self.cluster.failures), self.cluster.amnesiacs)
        for server_id in sorted(self.cluster.amnesiacs):
            self.cluster.bring_back(server_id)
        self.cluster.run_until(lambda: len(self.cluster.running_ids) == 5 and self.cluster.all_equal())

    def test_full_disk_ends_a_server_until_there_is_room(self) -> None:
        """A server with a full disk fails at each start until there is room."""
        self.cluster.expected_failures = (OSError,)
        self.happen("full_disk")
        self.cluster.submit(0, "a", 1)
        self.cluster.run(10)
        self.assertEqual(self.cluster.running_ids, [0, 1, 2, 3, 4])
        self.assertGreaterEqual(max(server.incarnations for server in self.cluster.servers.values()), 3)


class StrangersTests(SynchronousTestCase):
    def test_frame_that_changes_a_server_is_found(self) -> None:
        """The check of foreign frames finds a frame that changes a server, here a genuine one of a peer."""
        cluster = SimulatedCluster(self.id(), 3)
        cluster.run_until(cluster.has_leader)
        us = FrameIdentity(0, frozenset({1, 2}), cluster_digest("simulated", cluster.ids))
        vote = encode(Alive(0, cluster.replica(0).data.views.last_installed, State.REG_LEADER, 5))
        (frame,) = FrameCodec(us, cluster.disk(0).identity, cluster.disk(0).start_number).seal([vote])
        self.assertRaises(Violation, require_no_change, cluster, 1, frame)

    def test_noise_changes_nothing(self) -> None:
        """Random bytes in the place of a frame change nothing in the server that gets them."""
        cluster = SimulatedCluster(self.id(), 3)
        cluster.run_until(cluster.has_leader)
        require_no_change(cluster, 1, b"noise")


class BoundsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.run_ = Run(Plan(1, "calm", servers=3, seconds=1.0))
        self.run_.begin()
        self.run_.cluster.run(1)
        self.server = self.run_.cluster.process(1).server

    def test_healthy_servers_pass(self) -> None:
        """The check of bounds passes for healthy servers of a calm run."""
        check_bounds(self.run_.cluster, 6, {})

    def test_stopped_heartbeat_is_found(self) -> None:
        """The check of bounds finds a periodic timer that was not set again."""
        self.server.replica.retransmission.stop()
        error = self.assertRaises(Violation, check_bounds, self.run_.cluster, 6, {})
        self.assertIn("resend_due has stopped", str(error))

    def test_calls_of_a_server_that_pile_up_are_found(self) -> None:
        """The check of bounds finds a server that sets a timer again and again, and never cancels one."""
        clock = self.run_.cluster.server_clock(1)
        for _ in range(TIMERS_MAX):
            clock.callLater(100, self.server.replica.reconciliation.ask_again)
        self.assertIn("calls wait", str(self.assertRaises(Violation, check_bounds, self.run_.cluster, 6, {})))

    def test_visits_of_clients_at_a_paused_server_are_no_calls_of_the_server(self) -> None:
        """A listener comes back to a server that is paused for good any number of times, and nothing is wrong."""
        cluster = self.run_.cluster
        cluster.pause(1)
        listener = SimulatedListener(cluster, ReadHistory((), Counter()), random.Random(1))
        with_visits = len(cluster.server_clock(1).calls) + 2 * TIMERS_MAX
        while len(cluster.server_clock(1).calls) < with_visits:
            listener.move()
        check_bounds(cluster, 6, {})

    def test_progress_timer_beyond_its_limits_is_found(self) -> None:
        """The Progress_Timer is between its default and eight times that (docs/departures.rst)."""
        self.server.replica.data.timers.progress_seconds *= 16
        self.assertIn("Progress_Timer", str(self.assertRaises(Violation, check_bounds, self.run_.cluster, 6, {})))

    def test_closed_session_that_is_never_forgotten_is_found(self) -> None:
        """The check of bounds finds a closed session that is kept longer than the horizon."""
        ordering, horizon = self.server.replica.data.ordering, self.server.replica.settings.horizon_slots
        self.server.machine.closed_sessions["user"] = (7, ordering.local_aru - horizon, 1)
        check_bounds(self.run_.cluster, 6, {})
        self.server.machine.closed_sessions["user"] = (7, ordering.local_aru - horizon - 1, 1)
        self.assertIn("not forgotten", str(self.assertRaises(Violation, check_bounds, self.run_.cluster, 6, {})))

    def test_table_that_grows_is_found(self) -> None:
        """The check of bounds finds updates that stay in Pending_Updates."""
        clients = self.server.replica.data.clients
        clients.pending_updates.update((str(i), object()) for i in range(500))
        self.assertIn("pending", str(self.assertRaises(Violation, check_bounds, self.run_.cluster, 6, {})))
