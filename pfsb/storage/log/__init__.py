"""The log of one server: everything that it must still know after a crash (docs/internals/log.rst).

In: the content of groups, one after the other. Out: that content again, in the same order, as far as it was forced to
disk; or a refusal (`StorageRefused`), if anything of that is missing or changed.

* `items`: the content of a group, as bytes;
* `groups`: a group: number, checksum, place in the chain of groups;
* `segments`: the files of the log, and how one is made; `maker`: the thread that makes them ahead;
* `scan`: reading a whole log at the start, and what is refused;
* `index`: the place of each slot; `reader`: reading slots;
* `writer`: writing groups, and going on from one file to the next;
* `snapshot_files`: the files of snapshots beside the log; `snapshots`: the thread that writes them, and deletes what
  they replace; `compaction`: the part of the log that is kept beside a snapshot;
* `archive`: segments and snapshots that are superfluous, moved aside; `past`: reading these, and what is left here;
* `listing`: a log for people, as JSON values or tables;
* `migration`: making a log of a database of format 3;
* `storage`: `LogStorage`, in the reactor.
"""
