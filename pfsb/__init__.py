"""pfsb: a replicated state machine server that follows "Paxos for System Builders".

A server is built in layers; each imports only from layers below it.

    instances, service             a server inside another program, or as a process (`twistd pfsb`)
    frontends                      the ports of clients: lines, Redis commands, HTTP
    server, server_facts           one server below its sockets, and the figures that it shows
    hand_overs_asked, membership_changes, past_reads, snapshots_asked
                                   requests of clients about the server and its cluster
    sessions                       exactly-once commands, replies, subscriptions
    config                         the configuration file
    storage, transports, tracing   records on disk; frames between servers; traces
    paxos                          the protocol, one module per figure or section of the paper
    applications                   chat, locks, keys and values, instances: deterministic state machines
    support                        helpers that know nothing of pfsb

Beside the server: `client` is the library for programs, `cli` and `commands` are the `pfsb` command, `simulator` looks
for bugs in simulated clusters, `bench` measures and `demo` records real clusters, and `backups` makes backups and new
clusters of them. docs/architecture.rst shows how a
command passes through the layers.
"""

__version__ = "0.1.0"
