"""Every time, share and count that decides how a study spends its budget, with its unit and what speaks for it.

Seconds are of wall-clock, shares of the whole budget unless it is said otherwise. What a change of one of them does to
whole searches, `benchmarks/worlds.py` shows in virtual time.
"""

from __future__ import annotations

from autotune.records import Side

# The search and its trials

TRIAL_SHARE = 0.03
"""Training time of one trial: twenty of them fit into the search's share, enough for a model of the space."""
SHORTEST_TRIAL_S, LONGEST_TRIAL_S = 1.5, 20.0
KNOWN_TO = 0.02
"""Relative standard error of its throughput with which a trial may end before its time; a larger one where runs of one
configuration differ by so much that a longer run tells no more."""
FOR_REPEAT = 0.03
"""What the second run of the baseline may cost, which says early how long the trials should be. Two noisy cores get
through a quarter more runs with it. Where a start takes longer, the first round has to show how much runs differ."""
REPEAT_OF_TRIAL = 0.5
"""Training time of that run, as a share of a trial's."""
SIDE_SHARES: dict[Side, float] = {"step": 1 / 6, "loader": 1 / 3}
"""Share of a trial's training time for a run of one side. A step settles within it; a loader has to load a few
batches in each process."""
SHORTEST_SIDE_S = 1.0
SMALLEST_USEFUL_TRIAL_S = 1.0
"""In less, no trial gets through its warm-up."""
COMPILE_ALLOWANCE_S = 180.0
"""`torch.compile` takes 10 to 200 s."""
LAST_TRIALS = 3
"""At the end of a search: the best without settings that may gain nothing, again and again without another."""
MOST_LOSSES = 3
"""Times in a row that a trial's machine may be lost."""

WAITS_S = 5.0
"""Seconds of disturbed blocks, up to which a run goes on until two blocks were free of other work, where the machine is
usually free. A step of 0.5 s took 2 to 3 s beside a process that kept one core of two busy, and another run would have
taken 3 s to come to its first step."""

# What is kept for the end

CONFIRM_SHARE = 0.35
"""For the rounds, the stability tests and the soak, at least."""
MOST_FOR_CONFIRMING = 0.6
"""Where steps are so slow that the share would not do; a search needs the rest."""
EMIT_RESERVE_S = 1.0
"""For writing the result and ending the processes after the last run."""
LONGEST_RESTART_S = 8.0
"""Most seconds that a later start is expected to take, however long the study's first start took: its files are written
then, and libraries are in memory. A study that has less left is not resumed but concluded."""

# The rounds

FULL_ROUNDS = 2
"""Rounds of all finalists and the baseline, before any of them is left out and the leader is tested: one says nothing
about the spread."""
DUEL_ROUNDS = 4
"""Rounds of the leader and the baseline, as planned; more where time is left and the answer is not clear."""
FEWEST_DUELS = 2
"""Where more would leave their runs too short."""
MOST_ROUNDS = 100
LITTLE, NEXT_TO_NOTHING = 0.01, 0.004
"""ln(throughput) that is expected to be lost, on average over what is not known, by emitting the leader instead of a
finalist. That runs on as long as it is more than little; or than next to nothing, where the rounds will go on in any
case, because the leader's throughput cannot be known well in the time that there is. 1 % is what nobody would change a
setting for; less is free there."""
SHARE_OF_BASELINE = 0.5
"""Share of the leader's rounds that the baseline runs in once it is clear which of them is faster. With the leader
alone beside it, two runs in three go to the leader instead of one in two, and the interval of the speed-up is √1.5 =
1.22 times as wide as with as many runs of the baseline."""
EVEN = 0.03
"""Standard deviation between runs of one configuration, up to which finalists that are not expected to be better are
left out before the rounds, and runs end as soon as they are known, without looking for slow batches again. Where runs
differed by 13 %, the first took searches with a good choice from five of six to two (a slow batch in fifty), the second
from six to three (a noisy neighbour)."""
MUCH_SLOWER = 2.0
"""Times by which the baseline is surely slower than the best: its runs are then as short as its steps let them be. In
the worlds of an H200, where it is 8 and 16 times slower, two of its runs took 15 s to 28 s of a search of 150 s."""
PRECISE, TRUE_TO = 0.02, 0.03
"""Half the width of the leader's throughput interval, relative, as far as rounds narrow it: what is wanted, and what
does after the usual time."""
SHORTEST_RUN_S = 0.8
"""Training time of a confirming run: less would leave nothing after the warm-up."""
FEWEST_STEPS = 4
"""Optimizer steps of any run after its first: two of warm-up, two timed."""
OF_FIXED_COST = 0.5
"""Share of what a run of a round costs on average, however short it is: each trains so long at least, if there is time.
It adds little to the round, and what comes seldom, such as a slow batch in fifty, shows in long runs only."""
SPARE = 1.15
"""A run may take this much longer than it did before."""
PATIENCE, PATIENCE_S = 3, 5.0
"""Times what a confirming run should take, and seconds on top, after which it counts as one that hangs."""

# The stability tests

TESTS_SHARE = 0.15
"""For the reference runs and probes together, starts included."""
USUAL_WATCHED_RUNS, MOST_WATCHED_RUNS = 4, 6
"""A probe with three references and with five. Where it follows the first of them, two runs are all."""
GOOD_STEPS = 20
"""Optimizer steps of a watched run: five for each window of losses; more where the most runs would still fit into the
share."""
ENOUGH_STEPS, ENOUGH_SHARE = 12, 0.03
LEAST_STEPS, LEAST_STEPS_SHARE = 6, 0.05
"""Three for each of four windows, and of two, without which nothing can be compared; with the share of the budget that
a run may train for, so that it comes to as many, however long its start takes."""
LEAST_SHARE = 0.01
"""It adds little to a start that takes as long."""
REFERENCE_SEEDS = 3
"""Reference runs for a probe whose loss leaves that of its own seed's; for one whose loss does not, one is enough."""
SEEDS_IN_DOUBT = 5
"""For a probe whose loss is more than half way to the limit: five runs know the spread between seeds much better."""
USUAL_STEPS = 100
"""Optimizer steps of the comparison, where the spec asks for no soak."""
SMALLEST_USEFUL_TEST_S = 0.5
FOR_START_AND_FIRST_STEP_S = 30.0
"""On top of twice what a watched run trains, after which it counts as one that hangs."""

# The soak

SOAK_SHARE = 0.05
"""What a soak may take that goes on past the end of an epoch."""
SHORTEST_SOAK_S = 1.0
"""In less, nothing trains; a soak that is killed with more left has hung."""
KEPT_FOR_SOAK_S = 2.0
"""Kept for a soak, however few its steps: the start of a process may take a second longer than it did."""
MOST_FOR_SOAK = 0.5
"""Share of what is left: a soak that would take more goes without its reserve, and the verdict may end unconfirmed."""
