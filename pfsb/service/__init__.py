"""A server as a process: the only package that chooses the reactor, opens files and listens for clients.

In come a configuration and command line options, out comes a running server with its ports, its chat log and its
metrics; signals and failures end it. The package decides nothing about commands of clients: it only puts the parts of a
server together.

    service       `twistd pfsb`: options, start, signals, stop. The only module that imports the reactor
    start         the names that twistd looks up; takes the signals first
    assembly      makes a `pfsb.server.Server` from a configuration, for processes as well as for simulations
    daemon        lets the server go into the background, while the command in the terminal waits for its start
    whole_cluster whether all servers stop together, so that none hands over
    pid_file      the pid file, which a running server holds a lock on
    log_lines     the lines of the log
    log_signals   SIGHUP and SIGUSR1, from the first moment of the process on
    executed      lines that show what a server executes, for classrooms
    nearby        where a server's data is, and whether it may be somewhere else
    preflight     refuses ports that are in use, before the process leaves the terminal
    metrics       the figures of a server as text for Prometheus
    reactor_lag   how late the reactor makes its calls
    chat_log      the chat of a server as a file
    text_log      the text log, written in a thread
    memory_watch  refuses changes before the memory is used up
    past_process  a process that builds states of the past
    certificates  makes the certificates of a cluster
    log_command, migrate_command, pass_command
                  `pfsb log`, `pfsb migrate` and `pfsb pass`, which work on a data directory
"""
