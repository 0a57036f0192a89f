#!/usr/bin/env python3
"""Simulates a study on a cluster, event by event, beside a closed-form model of it: what of the GPUs' time is useful.

usage: simulate_cluster.py [--workers 1,8,100,1000] [--rounds-per-worker N | --rounds R] [options] [--json FILE]

Workers (one a GPU) take rounds from one queue. What is modelled, and by which option:
  rounds     their times are lognormal with a mean and a coefficient of variation; a share of the workers is slower by a
             factor (stragglers), all along
  load       hosts of --gpus-per-host workers read the model, once a host (pagecache), once a worker (each) or once in
             all (broadcast), over their links from a storage that all share, and hash it; then each worker makes
             itself ready
  mode mpi   a finished round is a message of tokens x variants x --token-bytes to rank 0, which takes one after the
             other: its link, then writing it down, and a sync of the journal at most once a second. The worker waits
             until it is taken, or not (--ahead)
  mode shared-folder  a worker writes its own file, and takes a round by a claim; the file system handles one claim
             after the other; at the end every worker reads all figures
  failures   of workers, exponential. With mpi a death stops the run: what was on its way, and what no sync had reached,
             is lost; after --restart-seconds all workers load again. With shared-folder the round is taken again once
             its claim has expired, and the worker comes back after --restart-seconds

efficiency = useful / (workers x time to the end); useful is what the rounds take at full speed, each counted once.
Where the rest of the workers' time went: slow (stragglers), load, wait (rank 0 or claims), idle (nothing left to take:
the tail), failures (work lost, restarts and their loading). The six add up to one. The model is explained in
docs/cluster.md. Standard library only; the same seed gives the same result.
"""
import argparse
import heapq
import itertools
import json
import math
import random
import statistics
import sys
from dataclasses import asdict, dataclass, replace

PARTS = ("useful", "slow", "load", "wait", "idle", "failures")
SYNC_EVERY = 1.0  # seconds: the journal's bound


@dataclass(frozen=True)
class Cluster:
    """A study and the machines it runs on; seconds and bytes."""
    workers: int
    rounds: int
    round_seconds: float = 16.0
    round_cv: float = 0.05
    straggler_share: float = 0.0
    straggler_factor: float = 1.5
    # loading
    gpus_per_host: int = 8
    model_bytes: float = 16e9
    load: str = "pagecache"
    storage_rate: float = 20e9
    host_rate: float = 3e9
    hash_rate: float = 12e9
    device_seconds: float = 5.0
    # rounds that come back
    mode: str = "mpi"
    tokens: int = 131072
    variants: int = 5
    token_bytes: float = 29.7
    link_rate: float = 3e9
    journal_rate: float = 0.28e9
    sync_seconds: float = 0.01
    ahead: bool = False
    claim_seconds: float = 0.002
    scan_rate: float = 1.7e9
    # failures
    mtbf: float = math.inf
    restart_seconds: float = 120.0
    claim_timeout: float = 60.0

    @property
    def hosts(self):
        return math.ceil(self.workers / self.gpus_per_host)

    @property
    def message_bytes(self):
        return self.tokens * self.variants * self.token_bytes

    @property
    def message_seconds(self):
        """Of rank 0, without syncs."""
        return self.message_bytes * (1 / self.link_rate + 1 / self.journal_rate)

    @property
    def own_seconds(self):
        """Of a worker that writes a round down itself."""
        return self.message_bytes / self.journal_rate + self.sync_seconds

    @property
    def read_back_seconds(self):
        """At the end each worker of a shared folder reads all figures, once from the storage for each host."""
        if self.mode == "mpi":
            return 0.0
        figures = self.rounds * self.message_bytes
        return figures / min(self.host_rate, self.storage_rate / self.hosts, self.scan_rate)

    def load_seconds(self, hosts=None):
        """Until a worker is ready when all of `hosts` load at once."""
        hosts = hosts or self.hosts
        # A host hashes what it reads: the slower of the two counts.
        rate = min(self.host_rate, self.storage_rate / hosts, self.hash_rate)
        if self.load == "pagecache":
            read = self.model_bytes / rate
        elif self.load == "each":
            read = self.model_bytes * min(self.gpus_per_host, self.workers) / rate
        else:  # broadcast: one host reads and passes on what it has read; the others do so, too, a piece later
            read = self.model_bytes / min(self.host_rate, self.storage_rate, self.hash_rate)
        return read + self.device_seconds

    @property
    def slow_workers(self):
        return round(self.straggler_share * self.workers)


@dataclass
class Outcome:
    """Worker-seconds by part, and what happened."""
    seconds: float
    parts: dict
    finished: list  # times that each round was finished and kept: all 1
    failures: int

    @property
    def efficiency(self):
        return self.parts["useful"] / sum(self.parts.values())


class RoundTimes:
    """Work of each round at full speed; the same however often it is run."""

    def __init__(self, cluster, generator):
        sigma = math.sqrt(math.log1p(cluster.round_cv ** 2))
        mu = math.log(cluster.round_seconds) - sigma ** 2 / 2
        self.times = [math.exp(generator.gauss(mu, sigma)) for _ in range(cluster.rounds)]


class Simulation:
    """One run. Events are (time, number, what to do, argument); equal times go in the order in which they were made."""

    GIVE_UP = 10000  # failures after which a run is taken never to end

    def __init__(self, cluster, seed):
        self.cluster = cluster
        self.random = random.Random(seed)
        self.work = RoundTimes(cluster, random.Random(seed + 1)).times
        # Spread over the hosts, so that no host has them all.
        slow = set(random.Random(seed + 2).sample(range(cluster.workers), cluster.slow_workers))
        self.factor = [cluster.straggler_factor if w in slow else 1.0 for w in range(cluster.workers)]
        self.parts = dict.fromkeys(PARTS, 0.0)
        self.finished = [0] * cluster.rounds
        self.left = cluster.rounds
        self.queue = list(range(cluster.rounds - 1, -1, -1))  # taken from its end
        self.events, self.number = [], itertools.count()
        self.failures = 0
        self.now = 0.0

    def at(self, time, action, *arguments):
        heapq.heappush(self.events, (time, next(self.number), action, arguments))

    def run(self):
        (self.run_mpi if self.cluster.mode == "mpi" else self.run_shared)()
        return Outcome(self.now, self.parts, self.finished, self.failures)

    def done(self, round_, factor):
        assert not self.finished[round_], "a round counts once"
        self.finished[round_] += 1
        self.left -= 1
        self.parts["useful"] += self.work[round_]
        self.parts["slow"] += self.work[round_] * (factor - 1)

    def lifetime(self, workers):
        """Until the first of so many fails."""
        return self.random.expovariate(workers / self.cluster.mtbf) if math.isfinite(self.cluster.mtbf) else math.inf

    # Ranks: each attempt runs until all is done or a rank dies.

    def run_mpi(self):
        first = True
        while True:
            death = self.now + self.lifetime(self.cluster.workers)
            if self.attempt(death, first):
                return
            self.failures += 1
            if self.failures > self.GIVE_UP:
                self.now = math.inf
                return
            self.now = death + self.cluster.restart_seconds
            self.parts["failures"] += self.cluster.restart_seconds * self.cluster.workers
            first = False

    def attempt(self, death, first):
        """From `now` on; True once all is done, False if `death` came first."""
        c, begin = self.cluster, self.now
        loaded = begin + c.load_seconds()
        part_of_load = "load" if first else "failures"
        if loaded >= death:
            self.parts["failures"] += (death - begin) * c.workers
            return False
        self.parts[part_of_load] += (loaded - begin) * c.workers
        self.events = []
        free = loaded            # when rank 0 is
        synced = loaded          # when its journal last was
        unsynced = []            # (round, factor, waited)
        since = [loaded] * c.workers  # when a worker last became idle
        running, coming = {}, {}  # worker -> (round, since when); rounds on their way to rank 0
        last = loaded
        for w in range(c.workers):
            self.at(loaded, "take", w)
        while self.events and self.events[0][0] < death:
            time, _, action, (w, *rest) = heapq.heappop(self.events)
            if action == "taken":
                entry, sync = rest
                if sync:
                    for other in unsynced:
                        self.keep(*other)
                    unsynced = []
                unsynced.append(entry)
                del coming[entry[0]]
                last = time
                if not c.ahead:
                    action = "take"
            if action == "take":
                since[w] = time
                if self.queue:
                    round_ = self.queue.pop()
                    running[w] = (round_, time)
                    self.at(time + self.work[round_] * self.factor[w], "sent", w)
            elif action == "sent":
                round_, _ = running.pop(w)
                # Messages come in the order of their times: rank 0 takes this one once it is free.
                taken = max(free, time) + c.message_seconds
                sync = taken - synced >= SYNC_EVERY
                if sync:
                    taken += c.sync_seconds
                    synced = taken
                free = taken
                coming[round_] = w
                waited = 0.0 if c.ahead else taken - time
                self.at(taken, "taken", w, (round_, self.factor[w], waited), sync)
                if c.ahead:
                    self.at(time, "take", w)
        if not self.events and last + c.sync_seconds < death:
            # The last sync, then the figures are there.
            for entry in unsynced:
                self.keep(*entry)
            self.now = last + c.sync_seconds
            self.parts["idle"] += sum(self.now - s for s in since)
            return True
        # What is lost, and what has been idle since.
        spent = (death - loaded) * c.workers
        self.queue += [round_ for round_, _ in running.values()] + list(coming) + [entry[0] for entry in unsynced]
        self.queue.sort(reverse=True)
        self.parts["failures"] += spent - self.kept_since
        self.kept_since = 0.0
        return False

    kept_since = 0.0  # worker-seconds of rounds that were kept in this attempt

    def keep(self, round_, factor, waited):
        self.done(round_, factor)
        self.parts["wait"] += waited
        self.kept_since += self.work[round_] * factor + waited

    # A shared folder: workers come and go, each on its own.

    def run_shared(self):
        c = self.cluster
        free = 0.0  # when the file system can take a claim
        state = [None] * c.workers     # (round, when its work began), or None
        since = [0.0] * c.workers      # when it began to be what it is now: loading, idle
        life = [0] * c.workers         # events of an earlier life are void
        idle = set()
        load, reload = c.load_seconds(), c.load_seconds(1)
        for w in range(c.workers):
            self.at(load, "ready", w, 0, "load")
            self.at(self.lifetime(1), "dies", w, 0)
        end = None
        while self.left:
            time, _, action, (w, born, *rest) = heapq.heappop(self.events)
            if action == "expires":
                self.queue.append(rest[0])
                while idle and self.queue:
                    other = min(idle)
                    idle.remove(other)
                    self.parts["idle"] += time - since[other]
                    self.at(time, "take", other, life[other])
                continue
            if born != life[w]:
                continue
            if action == "ready":
                self.parts[rest[0]] += time - since[w]
                since[w] = time
                action = "take"
            if action == "take":
                since[w] = time
                if not self.queue:
                    idle.add(w)
                    continue
                round_ = self.queue.pop()
                begin = max(free, time) + c.claim_seconds
                free = begin
                state[w] = (round_, time, begin)
                self.at(begin + self.work[round_] * self.factor[w] + c.own_seconds, "kept", w, born)
            elif action == "kept":
                round_, taken, begin = state[w]
                state[w] = None
                self.done(round_, self.factor[w])
                self.parts["wait"] += begin - taken + c.own_seconds
                since[w] = time
                end = time
                self.at(time, "take", w, born)
            elif action == "dies":
                self.failures += 1
                if self.failures > self.GIVE_UP:
                    self.now = math.inf
                    return
                if state[w]:
                    round_, taken, _ = state[w]
                    self.parts["failures"] += time - taken
                    state[w] = None
                    # It was renewed until now.
                    self.at(time + c.claim_timeout, "expires", w, born, round_)
                elif w in idle:
                    idle.remove(w)
                    self.parts["idle"] += time - since[w]
                else:
                    self.parts["failures"] += time - since[w]  # while it was loading
                life[w] += 1
                since[w] = time
                back = time + c.restart_seconds
                self.at(back + reload, "ready", w, life[w], "failures")
                self.at(back + self.lifetime(1), "dies", w, life[w])
        self.now = end
        for w in range(c.workers):
            # Whoever loads or is down at the end is so for failures, unless it never got ready.
            if w in idle or (state[w] is None and life[w] == 0 and since[w] >= load):
                self.parts["idle"] += end - since[w]
            else:
                self.parts["failures" if life[w] else "load"] += end - since[w]
        self.now += c.read_back_seconds
        self.parts["wait"] += c.read_back_seconds * c.workers


def simulate(cluster, seed=1):
    return Simulation(cluster, seed).run()


# The closed form.

def normal_tail(x):
    return 0.5 * math.erfc(x / math.sqrt(2))


class Lognormal:
    def __init__(self, mean, cv):
        self.mean = mean
        self.sigma = math.sqrt(math.log1p(cv ** 2))
        self.mu = math.log(mean) - self.sigma ** 2 / 2

    def above(self, x):
        """P(X > x)"""
        if self.sigma == 0:
            return 1.0 if x < self.mean else 0.0
        return normal_tail((math.log(x) - self.mu) / self.sigma) if x > 0 else 1.0

    def residual_above(self, x):
        """P(what is left of a round that is met at a random moment > x) = integral of above from x / mean"""
        if x <= 0:
            return 1.0
        if self.sigma == 0:
            return max(0.0, 1 - x / self.mean)
        beyond = normal_tail((math.log(x) - self.mu - self.sigma ** 2) / self.sigma)
        return max(0.0, beyond - x / self.mean * self.above(x))


def quantile(above, probability, high):
    """x with above(x) = probability, by bisection."""
    low = 0.0
    while above(high) > probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > probability else (low, middle)
    return high


def expected_largest(above, count, scale):
    """About E[max of `count`]: the quantile that Gumbel's mean has."""
    return quantile(above, -math.expm1(-math.exp(-0.5772) / count), scale)


def closed_form(cluster):
    """Efficiency and parts (of the whole) in expectation; None if the run would never end."""
    c = cluster
    t, w, r = c.round_seconds, c.workers, c.rounds
    rounds = Lognormal(t, c.round_cv)
    slow = c.slow_workers / w
    f = c.straggler_factor if slow else 1.0
    load = c.load_seconds()
    # A round that comes back: `service` of one server that all share, `own` of the worker itself.
    if c.mode == "mpi":
        # One sync a second, whoever is being served then.
        busy = min(1.0, w / t * c.message_seconds)
        service = c.message_seconds * (1 + c.sync_seconds / SYNC_EVERY) if busy >= 1 else (
            c.message_seconds + min(c.sync_seconds, c.sync_seconds / SYNC_EVERY * t / w))
        own = 0.0
    else:
        service, own = c.claim_seconds, c.own_seconds
    users = min(w, r)
    cycle = t + own

    def throughput(workers, wait):
        """Rounds a second of fast workers and slow ones that wait so long after each."""
        return workers * ((1 - slow) / (cycle + wait) + slow / (t * f + own + wait))

    waits = c.mode != "mpi" or not c.ahead
    if waits:
        load_of_server = min(users * service / (cycle + service), 0.999)
        # M/D/1; near saturation, that of as many periodic sources with random phases.
        queue = service * min(load_of_server / (2 * (1 - load_of_server)), math.sqrt(math.pi * users / 8))
        wait = service + (queue if c.round_cv > 0 else 0.0)
        if throughput(users, wait) * service > 1:
            # As long as it takes for all to send no more than one server takes.
            wait = quantile(lambda x: throughput(users, x), 1 / service, users * service)
    else:
        wait = 0.0
    rate = throughput(w, wait)
    per_worker = r / w

    def in_flight_above(x):
        return (1 - slow) * rounds.residual_above(x) + slow * rounds.residual_above(x / f)

    # Do the workers' rounds still end together at the end? Where their times vary little, or there are few.
    spread = c.round_cv * math.sqrt(per_worker)
    step = cycle + wait
    if r <= w:
        # Each takes one round at most: the slowest of them.
        longest = expected_largest(lambda x: (1 - slow) * rounds.above(x) + slow * rounds.above(x / f), r, t * f)
        longest = max(longest, t * f if slow * r >= 1 else t)
        end = longest + own + wait
    elif slow == 0 and spread < 0.15:
        sums = Lognormal(t * per_worker, c.round_cv / math.sqrt(per_worker)) if spread else None
        extra = expected_largest(sums.above, w, t * per_worker) - t * per_worker if sums and w > 1 else 0.0
        end = math.ceil(per_worker - 1e-9) * step + extra
    else:
        mean_left = (1 - slow) * t * (1 + c.round_cv ** 2) / 2 + slow * f * t * (1 + c.round_cv ** 2) / 2
        # The time weighs the workers: a slow one has been at it for longer, but there are no more of them.
        largest = expected_largest(in_flight_above, w, t * f) if w > 1 else mean_left
        end = r / rate + largest - mean_left
    if waits and users * service < cycle + service and spread < 0.5:
        # They all begin together: the last of the first messages is taken so much later than the first.
        end += (users - 1) * service
    if not waits:
        end += service
    # One server takes them all.
    end = max(end, t + r * service)
    end += c.sync_seconds if c.mode == "mpi" else 0.0
    whole = load + end + c.read_back_seconds
    deaths = 0.0
    lost = 0.0
    if math.isfinite(c.mtbf):
        hazard = w / c.mtbf
        left = t * (1 + c.round_cv ** 2) / 2 * ((1 - slow) + slow * f)
        if c.mode == "mpi":
            # While rounds run a death costs what was on its way, or not yet synced; loading starts over until one
            # survives.
            behind = left + wait / 2 + min(SYNC_EVERY, t) / 2
            tries = math.expm1(min(hazard * load, 50.0))  # deaths before one loading is done
            if hazard * behind >= 1 or tries > Simulation.GIVE_UP:
                return None
            running = hazard * end / (1 - hazard * behind)
            deaths = running + (1 + running) * tries
            lost = (1 + running) * (tries / hazard + tries * c.restart_seconds) - load + running * (
                behind + c.restart_seconds)
        else:
            reload = c.load_seconds(1)
            away = c.restart_seconds + reload + left
            deaths = hazard * whole * c.mtbf / (c.mtbf + away)
            # Towards the end an expiring claim keeps everybody waiting.
            late = -math.expm1(-hazard * (c.claim_timeout + t)) * (c.claim_timeout + t) / 2
            lost = deaths * away / w + late
        whole += lost
    useful = r * t / (w * whole)
    rounds_of_slow = slow / (t * f + own + wait) / (slow / (t * f + own + wait) + (1 - slow) / (cycle + wait))
    parts = {"useful": useful, "slow": useful * rounds_of_slow * (f - 1), "load": load / whole,
             "wait": (r * (wait + own) / w + c.read_back_seconds) / whole, "failures": lost / whole}
    parts["idle"] = max(0.0, 1 - sum(parts.values()))
    return {"efficiency": useful, "seconds": whole, "failures": deaths, "parts": parts}


def study(cluster, seeds, first_seed):
    """The simulation (mean over seeds) and the closed form, side by side."""
    runs = [simulate(cluster, first_seed + 1000003 * s) for s in range(seeds)]
    ended = [run for run in runs if math.isfinite(run.seconds)]
    simulated = None
    if len(ended) == len(runs):
        efficiencies = [run.efficiency for run in runs]
        total = [sum(run.parts.values()) for run in runs]
        simulated = {"efficiency": statistics.fmean(efficiencies),
                     "efficiency_stdev": statistics.stdev(efficiencies) if seeds > 1 else 0.0,
                     "seconds": statistics.fmean(run.seconds for run in runs),
                     "failures": statistics.fmean(run.failures for run in runs),
                     "parts": {p: statistics.fmean(run.parts[p] / s for run, s in zip(runs, total)) for p in PARTS}}
    model = closed_form(cluster)
    return {"cluster": {k: (None if v == math.inf else v) for k, v in asdict(cluster).items()}, "simulated": simulated,
            "model": model,
            "difference": model["efficiency"] - simulated["efficiency"] if model and simulated else None}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    d = Cluster(workers=1, rounds=1)
    parser.add_argument("--workers", default="1,8,64,256,1000", help="numbers of workers (1,8,64,256,1000)")
    parser.add_argument("--rounds-per-worker", type=float, default=20)
    parser.add_argument("--rounds", type=int, help="as many for all, instead of --rounds-per-worker")
    parser.add_argument("--round-seconds", type=float, default=d.round_seconds)
    parser.add_argument("--round-cv", type=float, default=d.round_cv,
                        help="standard deviation / mean of a round's time")
    parser.add_argument("--straggler-share", type=float, default=d.straggler_share)
    parser.add_argument("--straggler-factor", type=float, default=d.straggler_factor)
    parser.add_argument("--gpus-per-host", type=int, default=d.gpus_per_host)
    parser.add_argument("--model-gb", type=float, default=d.model_bytes / 1e9)
    parser.add_argument("--load", choices=("pagecache", "each", "broadcast"), default=d.load)
    parser.add_argument("--storage-gb-s", type=float, default=d.storage_rate / 1e9,
                        help="of the storage, for all hosts")
    parser.add_argument("--host-gb-s", type=float, default=d.host_rate / 1e9, help="that one host reads at most")
    parser.add_argument("--hash-gb-s", type=float, default=d.hash_rate / 1e9, help="at which a checkpoint is hashed")
    parser.add_argument("--device-seconds", type=float, default=d.device_seconds,
                        help="start, transfer and quantising of a worker")
    parser.add_argument("--mode", choices=("mpi", "shared-folder"), default=d.mode)
    parser.add_argument("--tokens", type=int, default=d.tokens, help="of a round")
    parser.add_argument("--variants", type=int, default=d.variants, help="of a round, the baseline counted")
    parser.add_argument("--token-bytes", type=float, default=d.token_bytes,
                        help="of a scored token and variant")
    parser.add_argument("--link-gb-s", type=float, default=d.link_rate / 1e9, help="of rank 0")
    parser.add_argument("--journal-gb-s", type=float, default=d.journal_rate / 1e9,
                        help="at which records are written")
    parser.add_argument("--sync-seconds", type=float, default=d.sync_seconds)
    parser.add_argument("--ahead", action="store_true", help="workers do not wait for rank 0")
    parser.add_argument("--claim-seconds", type=float, default=d.claim_seconds)
    parser.add_argument("--scan-gb-s", type=float, default=d.scan_rate / 1e9, help="at which records are read back")
    parser.add_argument("--mtbf-hours", type=float, default=math.inf, help="of one worker")
    parser.add_argument("--restart-seconds", type=float, default=d.restart_seconds)
    parser.add_argument("--claim-timeout", type=float, default=d.claim_timeout)
    parser.add_argument("--seeds", type=int, default=3, help="simulations a row (3)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE",
                        help="write the rows here ('-' is standard output, without the table)")
    return parser, parser.parse_args()


def clusters(parser, a):
    try:
        counts = [int(w) for w in a.workers.split(",")]
    except ValueError:
        parser.error(f"--workers {a.workers!r} is no list of numbers")
    positive = ("rounds_per_worker", "round_seconds", "gpus_per_host", "model_gb", "storage_gb_s", "host_gb_s",
                "hash_gb_s", "tokens", "variants", "token_bytes", "link_gb_s", "journal_gb_s", "scan_gb_s",
                "mtbf_hours", "seeds")
    for name in positive:
        if not getattr(a, name) > 0:
            parser.error(f"--{name.replace('_', '-')} is above 0")
    for name in ("round_cv", "device_seconds", "sync_seconds", "claim_seconds", "restart_seconds", "claim_timeout"):
        if getattr(a, name) < 0:
            parser.error(f"--{name.replace('_', '-')} is not negative")
    if min(counts) < 1 or (a.rounds is not None and a.rounds < 1):
        parser.error("--workers and --rounds are 1 at least")
    if not 0 <= a.straggler_share <= 1 or a.straggler_factor < 1:
        parser.error("--straggler-share is 0 to 1, --straggler-factor 1 at least")
    for w in counts:
        yield Cluster(
            workers=w, rounds=a.rounds or max(1, round(a.rounds_per_worker * w)), round_seconds=a.round_seconds,
            round_cv=a.round_cv, straggler_share=a.straggler_share, straggler_factor=a.straggler_factor,
            gpus_per_host=a.gpus_per_host, model_bytes=a.model_gb * 1e9, load=a.load,
            storage_rate=a.storage_gb_s * 1e9, host_rate=a.host_gb_s * 1e9, hash_rate=a.hash_gb_s * 1e9,
            device_seconds=a.device_seconds, mode=a.mode, tokens=a.tokens, variants=a.variants,
            token_bytes=a.token_bytes, link_rate=a.link_gb_s * 1e9, journal_rate=a.journal_gb_s * 1e9,
            sync_seconds=a.sync_seconds, ahead=a.ahead, claim_seconds=a.claim_seconds,
            scan_rate=a.scan_gb_s * 1e9, mtbf=a.mtbf_hours * 3600,
            restart_seconds=a.restart_seconds, claim_timeout=a.claim_timeout)


def print_row(row):
    c, s, m = row["cluster"], row["simulated"], row["model"]
    print(f"{c['workers']:>7} {c['rounds'] / c['workers']:>9.1f} ", end="")
    print(f"{m['efficiency']:>6.3f} " if m else f"{'never':>6} ", end="")
    if s is None:
        print(f"{'never':>6}", flush=True)
        return
    print(f"{s['efficiency']:>6.3f} {s['seconds']:>9.0f} {s['failures']:>6.1f} "
          + " ".join(f"{s['parts'][p]:>8.4f}" for p in PARTS[1:]), flush=True)


def main():
    parser, a = arguments()
    rows = []
    table = a.json != "-"
    if table:
        print(f"{'workers':>7} {'rounds/w':>9} {'model':>6} {'sim.':>6} {'seconds':>9} {'deaths':>6} "
              + " ".join(f"{p:>8}" for p in PARTS[1:]))
    for cluster in clusters(parser, a):
        rows.append(study(cluster, a.seeds, a.seed))
        if table:
            print_row(rows[-1])
    if a.json:
        text = json.dumps({"schema": "mxlm.cluster/1", "seed": a.seed, "seeds": a.seeds, "rows": rows}, indent=1) + "\n"
        if a.json == "-":
            sys.stdout.write(text)
        else:
            with open(a.json, "w", encoding="utf-8") as file:
                file.write(text)


if __name__ == "__main__":
    main()
