"""Helpers that know nothing of pfsb.

    command_line  kinds of values, help and errors of the subcommands of `pfsb`
    histogram     counts values in buckets
    hosts         looks up names of hosts; writes and compares addresses of sockets
    limits        limits of numbers that several layers agree on
    open_files    raises the limit of open files
    spelling      suggests a name for a misspelled one
    values        the decorator of classes that are frozen for the type checker only

Any package may import them; they import none, and touch nothing but the process's own limit of open files and,
in `hosts`, the system's resolver.
"""
