"""Subcommands of the `pfsb` program that speak to running servers, or start them.

In come a command line and a configuration file, out go lines on the terminal and an exit status. Each subcommand is a
module, imported by `pfsb.cli` when it is chosen, with `command`, whose callback checks the command line and returns
options, and `run(reactor, options)`. Subcommands reach servers over their ports, or start them as child processes; they
never import a server.

    options           options that the subcommands share: the configuration file comes first
    own_token         the token that the subcommands show to servers
    client            `pfsb client`: one command for the cluster, a line per command, interactive or a batch
    client_batch      many requests by many clients, and a summary
    client_terminal   the prompt for a person, above which replies and events are printed
    terminal_input    completion and history for the prompt
    line_refusals     lines that the client does not send
    line_client       the client of the other modules: the client library's core, driven by a reactor
    init              a configuration to begin with
    status, why       one line per server; what keeps a cluster from working
    survey            the STATUS of all servers, asked for at once
    settings          shows or changes the settings of a cluster
    servers           shows, adds, removes, moves or replaces servers
    token             makes tokens for clients
    secret            makes and changes the secret of the servers
    certificates      makes and renews the certificates of the servers
    check             what a configuration says
    cluster           all servers of a configuration as child processes (`cluster_child` is one of them)
    columns           tables with aligned columns
    one_question      one line to one server, on a connection of its own
    exit_status       the exit statuses of the subcommands that ask a cluster
"""
