"""The HTTP port: resources for the applications and for looking at the server, with JSON in and out.

In come HTTP requests, out go commands, questions and subscriptions to `pfsb.server.Server`; results come back as JSON
answers or as a stream of events. The package touches no protocol, storage or reactor, and no other front end except
the helpers of `frontends.line` and `frontends.stream` that all ports share. Imports run one way, in this order:

    answers, arguments      refusals and results as status and JSON; path, query, headers and body, parsed
    conditions              ETags, and the headers If-Match and If-None-Match
    sessions                the sessions that requests run in: one per client id, and a few anonymous ones
    web_pages               guards against web pages of third parties
    request                 one request and its one answer; `Site` is all that a request knows of the port
    chat, key_value, locks  handlers of the applications' resources
    settings                handlers of the settings that all servers share
    snapshots               handlers that take a snapshot, or send one as a backup
    commands                the handler of any command of any application
    server_info             handlers of status, health, metrics, faults and the API's description (openapi.yaml)
    routes                  the table of resources, methods and handlers
    protocol                connections, limits, and the site that makes them

`pfsb.frontends.http_port` loads this package when the first client connects. Resources are described in docs/http.rst.
"""
