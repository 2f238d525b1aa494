"""Helpers that know nothing of pfsb.

    command_line      kinds of values, help and errors of the subcommands of `pfsb`
    eager_write       writes to a connection without waiting for the reactor
    endpoint_strings  endpoint strings of Twisted as text
    histogram         counts values in buckets
    hosts             looks up names of hosts; writes and compares addresses of sockets
    limits            limits of numbers that several layers agree on
    open_files        raises the limit of open files
    private_files     files that only their owner may read
    rights, tokens    the rights of clients, and the tokens by which they show them
    spelling          suggests a name for a misspelled one
    values            the decorator of classes that are frozen for the type checker only
    views             views as pairs of epoch and number, packed into one number

Any package may import them; they import none, and touch nothing but the process's own limit of open files, the
files that a caller names to `private_files` and, in `hosts`, the system's resolver.
"""
