#!/usr/bin/env python3
"""tools/scale/simulate_cluster.py where the answer is known, and against its closed form. Standard library only."""
import json
import math
import subprocess
import sys
import unittest
from dataclasses import replace
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools/scale"
sys.path.insert(0, str(TOOLS))
import simulate_cluster as sim  # noqa: E402

# Nothing but rounds and loading: messages cost nothing.
PLAIN = sim.Cluster(workers=1, rounds=10, round_seconds=60, round_cv=0, token_bytes=1e-12, sync_seconds=0,
                    claim_seconds=0, model_bytes=15e9, storage_rate=30e9, host_rate=3e9, hash_rate=1e12,
                    device_seconds=5)
MODES = ("mpi", "shared-folder")


class KnownAnswers(unittest.TestCase):
    def both(self, cluster, efficiency, places=9):
        for mode in MODES:
            with self.subTest(mode=mode):
                cluster = replace(cluster, mode=mode)
                self.assertAlmostEqual(sim.simulate(cluster).efficiency, efficiency, places)
                self.assertAlmostEqual(sim.closed_form(cluster)["efficiency"], efficiency, places)

    def test_one_worker_computes_or_loads(self):
        self.both(PLAIN, 600 / (600 + 10))

    def test_equal_rounds_in_whole_turns_have_no_tail(self):
        for rounds in (8, 40):
            self.both(replace(PLAIN, workers=8, rounds=rounds), rounds / 8 * 60 / (rounds / 8 * 60 + 10))

    def test_the_last_turn_is_not_full(self):
        # 21 rounds on 8 workers: three turns.
        self.both(replace(PLAIN, workers=8, rounds=21, model_bytes=1e-9, device_seconds=0), 21 / 24)

    def test_fewer_rounds_than_workers(self):
        self.both(replace(PLAIN, workers=100, rounds=25, model_bytes=1e-9, device_seconds=0), 0.25)

    def test_storage_is_shared_by_hosts(self):
        # 20 hosts at 30 GB/s: 1.5 GB/s each; 15 GB take 10 s once a host, 80 s once a worker, 5 s as a broadcast.
        cluster = replace(PLAIN, workers=160, rounds=1600)
        for load, seconds in (("pagecache", 10), ("each", 80), ("broadcast", 5)):
            self.both(replace(cluster, load=load), 600 / (600 + seconds + 5))

    def test_rank_0_takes_one_message_after_the_other(self):
        # 6 s a message on 20 workers: 120 s a turn of 60 s rounds, so the last of 200 messages is taken 1200 s after
        # the first one was sent.
        cluster = replace(PLAIN, workers=20, rounds=200, tokens=1, variants=1, token_bytes=6, link_rate=2,
                          journal_rate=2, model_bytes=1e-9, device_seconds=0)
        for ahead in (False, True):
            outcome = sim.simulate(replace(cluster, ahead=ahead))
            self.assertAlmostEqual(outcome.seconds, 60 + 200 * 6)
            self.assertAlmostEqual(sim.closed_form(replace(cluster, ahead=ahead))["seconds"], 60 + 200 * 6, delta=1e-6)

    def test_a_worker_waits_for_its_message(self):
        cluster = replace(PLAIN, tokens=1, variants=1, token_bytes=6, link_rate=2, journal_rate=3, model_bytes=1e-9,
                          device_seconds=0)
        self.assertAlmostEqual(sim.simulate(cluster).seconds, 10 * 65)
        self.assertAlmostEqual(sim.simulate(replace(cluster, mode="shared-folder")).seconds, 10 * 62)
        self.assertAlmostEqual(sim.simulate(replace(cluster, ahead=True)).seconds, 10 * 60 + 5)

    def test_a_slow_worker_takes_fewer_rounds(self):
        # One of two is half as fast: of 30 rounds it takes 10, and both end together.
        cluster = replace(PLAIN, workers=2, rounds=30, straggler_share=0.5, straggler_factor=2, model_bytes=1e-9,
                          device_seconds=0)
        for mode in MODES:
            outcome = sim.simulate(replace(cluster, mode=mode))
            self.assertAlmostEqual(outcome.seconds, 1200)
            self.assertAlmostEqual(outcome.parts["slow"], 600)
            self.assertAlmostEqual(outcome.efficiency, 0.75)


class Failures(unittest.TestCase):
    CLUSTER = sim.Cluster(workers=64, rounds=1280, round_seconds=60, round_cv=0.3, mtbf=8 * 3600, restart_seconds=30,
                          claim_timeout=90, straggler_share=0.1)

    def test_every_round_is_done_exactly_once_and_every_second_is_somewhere(self):
        deaths = 0
        for mode in MODES:
            for ahead in (False, True):
                for seed in range(5):
                    cluster = replace(self.CLUSTER, mode=mode, ahead=ahead)
                    outcome = sim.simulate(cluster, seed)
                    self.assertEqual(outcome.finished, [1] * cluster.rounds)
                    self.assertAlmostEqual(sum(outcome.parts.values()) / (cluster.workers * outcome.seconds), 1, 9)
                    self.assertGreaterEqual(min(outcome.parts.values()), 0)
                    work = sim.Simulation(cluster, seed).work
                    self.assertAlmostEqual(outcome.parts["useful"], sum(work), delta=1e-6 * sum(work))
                    deaths += outcome.failures
        self.assertGreater(deaths, 20)

    def test_failures_cost_time(self):
        for mode in MODES:
            cluster = replace(self.CLUSTER, mode=mode)
            self.assertLess(sim.simulate(cluster).efficiency, sim.simulate(replace(cluster, mtbf=math.inf)).efficiency)

    def test_a_death_costs_the_dead_workers_round_or_everybodys(self):
        lost = {mode: sim.simulate(replace(self.CLUSTER, mode=mode)) for mode in MODES}
        a_death = {mode: o.parts["failures"] / o.failures for mode, o in lost.items()}
        self.assertGreater(a_death["mpi"], 20 * a_death["shared-folder"])

    def test_what_can_never_end_is_said(self):
        cluster = replace(self.CLUSTER, mtbf=60.0)  # a second for 64 workers, less than loading takes
        self.assertIsNone(sim.closed_form(cluster))
        self.assertEqual(sim.simulate(cluster).seconds, math.inf)


class ClosedForm(unittest.TestCase):
    def test_agrees_with_the_simulation(self):
        base = sim.Cluster(workers=1, rounds=1)
        cases = [
            {}, {"round_cv": 0.0}, {"round_cv": 0.3}, {"straggler_share": 0.05, "straggler_factor": 2.0},
            {"straggler_share": 0.3, "straggler_factor": 1.3, "round_cv": 0.2}, {"load": "broadcast"}, {"load": "each"},
            {"mode": "shared-folder"}, {"round_seconds": 15.0}, {"round_seconds": 15.0, "ahead": True},
            {"mtbf": 2000 * 3600.0}, {"mtbf": 2000 * 3600.0, "mode": "shared-folder"},
            {"mtbf": 200 * 3600.0}, {"mtbf": 200 * 3600.0, "mode": "shared-folder"}, {"journal_rate": 1e9},
        ]
        for case in cases:
            for workers in (8, 64, 300):
                with self.subTest(workers=workers, **case):
                    row = sim.study(replace(base, workers=workers, rounds=20 * workers, **case), 3, 1)
                    self.assertLess(abs(row["difference"]), 0.025)
                    self.assertAlmostEqual(sum(row["simulated"]["parts"].values()), 1)

    def test_parts_are_those_of_the_simulation(self):
        row = sim.study(sim.Cluster(workers=300, rounds=6000, straggler_share=0.1, straggler_factor=1.5), 3, 1)
        for part in sim.PARTS:
            self.assertAlmostEqual(row["model"]["parts"][part], row["simulated"]["parts"][part], delta=0.02, msg=part)


class Program(unittest.TestCase):
    def run_it(self, *options):
        return subprocess.run([sys.executable, str(TOOLS / "simulate_cluster.py"), *options], capture_output=True,
                              text=True)

    def test_the_same_seed_gives_the_same_result(self):
        options = ("--workers", "8,50", "--mtbf-hours", "20", "--round-cv", "0.2", "--json", "-")
        first, second, other = (self.run_it(*options, "--seed", seed) for seed in ("3", "3", "4"))
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertEqual(first.stdout, second.stdout)
        self.assertNotEqual(first.stdout, other.stdout)
        rows = json.loads(first.stdout)["rows"]
        self.assertEqual([row["cluster"]["workers"] for row in rows], [8, 50])

    def test_nonsense_is_refused(self):
        for options in (["--workers", "0"], ["--workers", "two"], ["--round-seconds", "0"],
                        ["--straggler-factor", "0.5"], ["--restart-seconds", "-1"]):
            self.assertEqual(self.run_it(*options).returncode, 2, options)


if __name__ == "__main__":
    unittest.main()
