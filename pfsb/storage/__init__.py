"""Stable storage: whatever a server must still know after a crash (docs/internals/storage.rst).

In: records (`pfsb.paxos.records`) by `append`, and requests to `sync` them. Out: the content that `recover` finds at a
start, a callback for each sync when its records and all earlier ones are on disk, and ranges of history for servers
that are behind. Snapshots come in piece by piece, or as bytes of another server, and stand for the history up to their
slot. The interface is `IStableStorage`; `LogStorage` and `MemoryStorage` provide it.

Rules that the protocol rests on:

* callbacks come in the order of the syncs, and never before the records are on disk;
* records that are lost in a crash were never acknowledged;
* after a failed write nothing is acknowledged any more, and the server stops;
* a storage that was damaged, lost a part, or belongs to another server or cluster is refused at the start, since a
  server that has forgotten a vote or a promise must not vote again;
* one process at a time uses a data directory.

This package knows records and batches, but no messages, sessions or applications. All code runs in the reactor's
thread, except for the two threads of `threads`, `log.maker`, `log.snapshots` and the watch of `directory`.

* `log`: `LogStorage` and the format of its files;
* `memory`: `MemoryStorage`, which a simulated crash treats like a disk; `memory_snapshots`: its snapshots;
* `effect`: the content of a storage, and how records change it;
* `acknowledgements`: the order of the callbacks;
* `threads`: the writer and the reader; `worker`: what all threads of a storage share;
* `durable`: writing to a file so that it is on disk;
* `owner`: whose a storage is; `directory`: the lock and the watch of the data directory;
* `position_note`: how many groups must be there; `room`: whether the disk is full;
* `old_database`, `rows` and `wal`: databases of format 3, which `log.migration` takes over; `sqlite`: what reads them;
* `refusals`: texts of `StorageRefused`; `counters`: figures for STATUS and metrics.
"""
