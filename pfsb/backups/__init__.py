"""Backups: snapshots of a running cluster in files of their own, and clusters made of such files.

What comes in: a configuration, which says where the servers are, or a file that `pfsb backup` has written. What goes
out: such files, and data directories of servers that do not run.

A backup is a snapshot (`pfsb.paxos.snapshot`), byte by byte: the state of all servers after one slot. `download` brings
it from a server over HTTP, `backup_file` reads and checks it, and the modules whose names end in `_command` are the
subcommands of `pfsb`. Nothing here is part of a running server.
"""
