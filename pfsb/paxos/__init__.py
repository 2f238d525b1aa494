"""The protocol: Paxos as Kirsch & Amir, *Paxos for System Builders*, describe it (docs/architecture.rst).

In: the messages of other servers (`Replica.receive`), updates of this server's clients (`Replica.introduce`), timers of
the clock, and the state on disk at the start. Out: records for the storage, messages for the transport, and calls of
the state machine, which executes the ordered updates in the order of their sequence numbers.

Rules that the promises S1 to S3 rest on:

* every event runs as a turn (`turn`), which waits for nothing; turns never overlap;
* no vote, promise or answer leaves the server before the records that it rests on are on disk. Only ALIVE, and a
  PROPOSAL whose view is on disk, may leave earlier;
* a handler depends only on its inputs: it opens no socket and no file, and uses the clock and the random numbers that
  it is given, so that the simulator can repeat a run from one seed;
* of pfsb this package imports only `pfsb.support`. Storage, transport and state machine are behind `interfaces`.

Each figure of the paper has a file, and each handler of the paper a class (docs/paper-map.rst). `replica` builds the
handlers, hands each message to the one that owns it, and says what happens at the end of a turn. `data_structures` is
the state, `messages` and `records` are the values that are sent and stored, and `invariants` checks one server's state.
"""
