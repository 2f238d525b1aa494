"""pfsb: a replicated state machine server that follows "Paxos for System Builders"."""

__version__ = "0.1.0"
