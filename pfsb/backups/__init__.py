"""Backups: snapshots of a running cluster in files of their own, and clusters made of such files.

In: a configuration, which says where the servers are, or a file that `pfsb backup` has written. Out: such files, and
data directories of servers that do not run.

A backup is a snapshot (`pfsb.paxos.snapshot`), byte by byte: the state of all servers after one slot. `download` brings
it from a server over HTTP, `backup_file` reads and checks it, and the modules whose names end in `_command` are the
subcommands of `pfsb`. Nothing here is part of a running server, but for `past_child`, a process that a server starts.

* `download`, `backup_file`: a backup on its way, and as a file. `json_lines`: its contents for other programs.
* `new_cluster`: the data directories of a new cluster, from a backup or from `survivors`, the directories that are
  left.
* `past`: states of the past, from archives and data directories; `past_child`: the same for a server.
* `idle_replica`: a replica that only executes. `progress`: lines about a long command.
"""
